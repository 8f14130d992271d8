"""What a fuzz target is: one parser of what comes from outside, how it is asked, and which refusals are its right."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Judge = Callable[[bytes], object]
Seeds = Callable[[], Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class Target:
    """One parser.

    name:       the room and what is read; the seeds of failures that were found are below `found/NAME`.
    judge:      gives it an input, also with its checksum or tag put right where it has one; raises what is a finding.
    seeds:      valid inputs, made by the project's own writers.
    refusals:   what the parser says that it raises.
    text:       inputs are changed by tokens too.
    most_bytes: of an input.
    """

    name: str
    judge: Judge
    seeds: Seeds
    refusals: tuple[type[Exception], ...] = ()
    text: bool = False
    most_bytes: int = 64 * 1024

    def offer(self, data: bytes) -> None:
        """Give the parser an input. Raises whatever it should not have raised."""
        if len(data) > self.most_bytes:
            return
        try:
            self.judge(data)
        except self.refusals:
            return


def each(*judges: Judge, refusals: tuple[type[Exception], ...] = ()) -> Judge:
    """One judge of several, each of which is asked whatever those before it refused."""

    def judge(data: bytes) -> None:
        for one in judges:
            try:
                one(data)
            except refusals:
                continue

    return judge
