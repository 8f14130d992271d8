"""What goes wrong, as values: a moment, a verb, its arguments, and how long it lasts.

The same form is drawn from a seed, read from a scenario, and printed with a violation, so that what a seed found can
be kept as a scenario. What each verb does to the world, and how it is undone, is in `verbs_hosts`,
`verbs_workloads` and `verbs_fencing`; a fault without a length stays.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from . import verbs_fencing, verbs_hosts, verbs_workloads
from .operators import Operators
from .parts import Parts
from .verb import UnknownVerb

VERBS = verbs_hosts.VERBS | verbs_workloads.VERBS | verbs_fencing.VERBS


@dataclass(frozen=True, slots=True)
class Fault:
    """at_s: seconds since the run began. for_s: how long it lasts; None: it is not undone."""

    at_s: float
    verb: str
    args: tuple[str, ...] = ()
    for_s: float | None = None

    def __str__(self) -> str:
        words = f"at {self.at_s:g} s: {' '.join((self.verb, *self.args))}"
        return words if self.for_s is None else f"{words} for {self.for_s:g} s"


class Breaker:
    """Does faults to a world, and undoes them when their time is over."""

    def __init__(self, parts: Parts, operators: Operators) -> None:
        self._parts = parts
        self._operators = operators

    def plan(self, faults: Iterable[Fault]) -> None:
        """Put all of them on the agenda."""
        for fault in faults:
            check(fault, self._parts.hosts)
            self._parts.agenda.at(fault.at_s, self._do, fault)

    def _do(self, fault: Fault) -> None:
        parts = self._parts
        lasts = "" if fault.for_s is None else f" for {fault.for_s:g} s"
        parts.timeline.happened(parts.agenda.now, " ".join((fault.verb, *fault.args)) + lasts)
        undo = VERBS[fault.verb].act(parts, self._operators, *fault.args)
        if undo is not None and fault.for_s is not None:
            parts.agenda.after(fault.for_s, self._undo, fault, undo)

    def _undo(self, fault: Fault, undo: Callable[[], None]) -> None:
        self._parts.timeline.happened(self._parts.agenda.now, f"{' '.join((fault.verb, *fault.args))}: over")
        undo()


def check(fault: Fault, hosts: Iterable[str]) -> None:
    """Raise UnknownVerb, saying what is wrong, when no world could do this."""
    known = VERBS.get(fault.verb)
    if known is None:
        raise UnknownVerb(f"no verb {fault.verb!r}; there are: {', '.join(sorted(VERBS))}")
    if not known.least <= len(fault.args) <= known.most:
        raise UnknownVerb(f"{fault.verb} takes {known.least} to {known.most} arguments, not {len(fault.args)}")
    names = set(hosts)
    for position in known.hosts:
        if position < len(fault.args):
            for name in fault.args[position].split("+"):
                if name not in names:
                    raise UnknownVerb(f"{fault.verb}: there is no host {name!r}")
