"""All rules that must hold in every run, each by its own name; a rule that does not hold ends the run.

Each is proven able to fail by a test that breaks it on purpose.
"""

from .checker import Checker, Violation, runs_whole, wanted
from .fenced import HostsThatLiveAreLeftAlone, PlacedOnProof
from .liveness import (
    LeaderReplaced,
    NoRestartStorm,
    PairableIsPaired,
    PairedGoesOn,
    PlaceableRunsAgain,
    StateStaysBounded,
    StoppedStaysDown,
)
from .safety import (
    ClaimsNeverOverlap,
    DisksAreNewest,
    EndedStaysEnded,
    GenerationsOnlyGrow,
    LeadersWriteInTheirTerm,
    NeverTwo,
    NoDeadWhileSlotFresh,
    OneVoice,
)

ALL: tuple[type[Checker], ...] = (
    NeverTwo,
    ClaimsNeverOverlap,
    GenerationsOnlyGrow,
    EndedStaysEnded,
    NoDeadWhileSlotFresh,
    LeadersWriteInTheirTerm,
    OneVoice,
    DisksAreNewest,
    PlacedOnProof,
    HostsThatLiveAreLeftAlone,
    PairedGoesOn,
    LeaderReplaced,
    PlaceableRunsAgain,
    PairableIsPaired,
    StoppedStaysDown,
    NoRestartStorm,
    StateStaysBounded,
)

__all__ = [
    "ALL",
    "Checker",
    "ClaimsNeverOverlap",
    "DisksAreNewest",
    "EndedStaysEnded",
    "GenerationsOnlyGrow",
    "HostsThatLiveAreLeftAlone",
    "LeaderReplaced",
    "LeadersWriteInTheirTerm",
    "NeverTwo",
    "NoDeadWhileSlotFresh",
    "NoRestartStorm",
    "OneVoice",
    "PairableIsPaired",
    "PairedGoesOn",
    "PlaceableRunsAgain",
    "PlacedOnProof",
    "StateStaysBounded",
    "StoppedStaysDown",
    "Violation",
    "runs_whole",
    "wanted",
]
