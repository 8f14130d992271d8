"""The one hierarchy of errors, and the five ways in which a command can end badly.

An error is raised where it is known, travels unchanged (over HTTP as a problem object), and is
shown once, at the edge. Each has an id that scripts may match, a sentence that says what happened,
a cause, a remedy, and the exit code of the command that ends with it. Errors that only one room
knows are defined in that room, as subclasses of the five below; this file reads no clock, opens no
file and imports nothing of the project, so that `cluster` may raise them too.
"""

from collections.abc import Mapping
from typing import ClassVar

PROBLEM_TYPE_PREFIX = "urn:outlive:problem:"


class OutliveError(Exception):
    """Something that a person can be told in a sentence, and can do something about.

    sentence: what happened, complete, with its subject: "The claim of host a has ended."
    cause:    why, as far as known; empty when the sentence says it all.
    remedy:   what to do now, as an instruction; empty when nothing can be done.
    id:       overrides the class's id where one class stands for several errors.
    """

    id: str = "failed"
    exit_code: ClassVar[int] = 1

    def __init__(self, sentence: str, *, cause: str = "", remedy: str = "", id: str | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.cause = cause
        self.remedy = remedy
        if id is not None:
            self.id = id

    def __str__(self) -> str:
        return f"{self.sentence} ({self.cause})" if self.cause else self.sentence

    def problem(self) -> dict[str, str | int]:
        """Return the problem object (RFC 9457) of this error, the same on a terminal and over HTTP."""
        return {
            "type": PROBLEM_TYPE_PREFIX + self.id,
            "id": self.id,
            "title": self.sentence,
            "detail": self.cause,
            "remedy": self.remedy,
            "exit_code": self.exit_code,
        }


class Failed(OutliveError):
    """The work was tried and did not succeed (exit code 1)."""


class UsageInvalid(OutliveError):
    """What was asked for cannot be understood or is not valid: options, files, names (exit code 2)."""

    id = "usage.invalid"
    exit_code = 2


class RefusedForSafety(OutliveError):
    """Doing it could run something twice or lose acknowledged data, so it was not done (exit code 3)."""

    id = "refused"
    exit_code = 3


class ClusterUnreachable(OutliveError):
    """No agent answered, or the one that did cannot reach its store (exit code 4)."""

    id = "cluster.unreachable"
    exit_code = 4


class Degraded(OutliveError):
    """It works, but something that should protect it does not (exit code 5)."""

    id = "degraded"
    exit_code = 5


_KINDS: dict[int, type[OutliveError]] = {
    kind.exit_code: kind for kind in (Failed, UsageInvalid, RefusedForSafety, ClusterUnreachable, Degraded)
}


def from_problem(problem: Mapping[str, object]) -> OutliveError:
    """Rebuild the error that a problem object tells, whoever sent it.

    problem: a decoded JSON object; missing or foreign members become a plain `Failed`, since a
             peer of another version must not be able to crash the teller.
    """

    def text(member: str) -> str:
        value = problem.get(member)
        return value if isinstance(value, str) else ""

    exit_code = problem.get("exit_code")
    kind = _KINDS.get(exit_code, Failed) if isinstance(exit_code, int) else Failed
    return kind(
        text("title") or "The other side reported a failure without saying which.",
        cause=text("detail"),
        remedy=text("remedy"),
        id=text("id") or text("type").removeprefix(PROBLEM_TYPE_PREFIX) or None,
    )
