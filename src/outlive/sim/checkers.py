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
from .rollouts import LastCopyStays, OneTrialAtATime, PackagesAreKept, TrialsEnd
from .safety import (
    ClaimsNeverOverlap,
    CompanyKept,
    DisksAreNewest,
    EndedStaysEnded,
    GenerationsOnlyGrow,
    LeadersWriteInTheirTerm,
    NeverTwo,
    NoDeadWhileSlotFresh,
    OneVoice,
)
from .wishes import EmptiedStaysEmpty, FrozenStaysAsItIs

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
    OneTrialAtATime,
    LastCopyStays,
    CompanyKept,
    FrozenStaysAsItIs,
    EmptiedStaysEmpty,
    PairedGoesOn,
    LeaderReplaced,
    PlaceableRunsAgain,
    PairableIsPaired,
    StoppedStaysDown,
    TrialsEnd,
    PackagesAreKept,
    NoRestartStorm,
    StateStaysBounded,
)

__all__ = [
    "ALL",
    "Checker",
    "ClaimsNeverOverlap",
    "CompanyKept",
    "DisksAreNewest",
    "EmptiedStaysEmpty",
    "EndedStaysEnded",
    "FrozenStaysAsItIs",
    "GenerationsOnlyGrow",
    "HostsThatLiveAreLeftAlone",
    "LastCopyStays",
    "LeaderReplaced",
    "LeadersWriteInTheirTerm",
    "NeverTwo",
    "NoDeadWhileSlotFresh",
    "NoRestartStorm",
    "OneTrialAtATime",
    "OneVoice",
    "PackagesAreKept",
    "PairableIsPaired",
    "PairedGoesOn",
    "PlaceableRunsAgain",
    "PlacedOnProof",
    "StateStaysBounded",
    "StoppedStaysDown",
    "TrialsEnd",
    "Violation",
    "runs_whole",
    "wanted",
]
