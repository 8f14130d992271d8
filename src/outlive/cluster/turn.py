"""One event being dealt with: the newest state, and the commands so far.

Both machines' rules are written against a turn; it lives for one `step` only, so that a step stays a function from
values to values. A state has many fields and a step copies it several times: so states are msgspec structs, which
copy twenty times faster than dataclasses. What is recorded for people gets its id here, and the consequence
names its cause by that id.
"""

from typing import Any, Generic, Protocol, TypeVar

from msgspec.structs import replace

from .commands import Act, Command, Purpose, RecordEvent, Transact
from .records import EventRecord
from .transaction import Transaction


class _State(Protocol):
    """What a turn needs of a machine's state. issued: how many events this machine's run has recorded."""

    @property
    def me(self) -> str: ...
    @property
    def run(self) -> str: ...
    @property
    def at(self) -> float: ...
    @property
    def issued(self) -> int: ...


S = TypeVar("S", bound=_State)


class BaseTurn(Generic[S]):
    """Mutable for the length of one step."""

    prefix = "n"

    def __init__(self, state: S) -> None:
        self.state = state
        self.commands: list[Command] = []

    def set(self, **changes: Any) -> None:
        """Change fields of the state."""
        self.state = replace(self.state, **changes)  # type: ignore[type-var]

    def do(self, command: Command) -> None:
        """Ask for something, after what was asked for before."""
        self.commands.append(command)

    def transact(self, act: Act, subject: str, transaction: Transaction, number: int = 0, because: str = "") -> None:
        """Ask the store for a transaction."""
        self.do(Transact(Purpose(act, subject, number), transaction, because))

    def note(self, kind: str, *, because: str = "", **about: Any) -> str:
        """Record that something happened; returns the id by which its consequences name it."""
        state = self.state
        issued = state.issued + 1
        self.set(issued=issued)
        event = EventRecord(
            id=f"{state.me}.{state.run}.{self.prefix}{issued}",
            kind=kind,
            by=state.me,
            at_s=state.at,
            because=because,
            **about,
        )
        self.do(RecordEvent(event))
        return event.id
