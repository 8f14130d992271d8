"""What an agent and a communication manager say to each other, and the agent's end of that conversation.

The manager listens on the Unix socket `comm.sock` in its state folder. Each line is one JSON object: the agent's have
a member `do`, the manager's a member `told`. One agent at a time; a new connection takes the place of the old one, so
that a restarted agent simply connects again, and the first thing it is told is always a `Status`. What was told while
no agent listened and still matters stands in that status (`phase`, `reason`). Times are milliseconds, sizes bytes.

    phase        the manager                                      follows on
    starting     not ready yet; a status or `listening` follows   start
    free         primary, nobody follows; output leaves at once   start, alone
    seeding      primary, first copy under way; output free       pair
    paired       primary, nothing leaves unacknowledged           the first acknowledged epoch
    lost         primary, holds all output until told `alone`     peer-lost
    handed-over  primary, guest stopped, holds all output         hand-over
    listening    standby without a whole epoch                    start
    following    standby with a whole epoch                       paired
    peer-lost    standby that asks to take over; refuses epochs   silence, end of stream, hand-over
    adopting     standby that becomes the primary                 adopt
    failed       nothing can be promised any more

Reasons of `peer-lost` that are words: silence, no-progress, end-of-stream, guest-ended (the guest switched itself off:
nothing is to be taken over). Others are sentences, after garbage:, own disk:, sending: or qemu-gone:.

It has no word for ending: an agent kills it, and what it holds is lost with it, as frames on a wire may be.

The arbitration is not here: `alone` and `adopt` are said only by an agent that won the store. After `adopt` the same
process is the primary (`free`) and can be told `pair`. Unknown members are ignored, unknown words refused.
"""

import asyncio
import contextlib
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from outlive.errors import Failed

GUEST_ENDED = "guest-ended"
OWN_DISK = "own disk:"
MOST_LINE_BYTES = 64 * 1024
CONNECT_S = 5.0
SEND_S = 5.0


class ManagerUnreachable(Failed):
    """The communication manager does not answer, or the connection to it ended."""

    id = "replication.manager_unreachable"


class _Command(msgspec.Struct, frozen=True, tag_field="do"):
    pass


class Pair(_Command, frozen=True, tag="pair"):
    """Primary: seed the standby that listens there, then hold output for it. `pairing` must be newer than the last."""

    standby_host: str
    address: str
    port: int
    generation: int
    pairing: int


class Alone(_Command, frozen=True, tag="alone"):
    """Primary: the store says that this host goes on without a standby; release what is held. Also resumes a guest
    that a hand-over had stopped."""

    pairing: int


class HandOver(_Command, frozen=True, tag="hand-over"):
    """Primary: stop the guest, send a last epoch, leave the guest stopped."""


class Adopt(_Command, frozen=True, tag="adopt"):
    """Standby: the store says that this host acts at `generation`; become the primary."""

    generation: int


class Checkpoint(_Command, frozen=True, tag="checkpoint"):
    """Write a checkpoint of that name."""

    name: str
    reason: str = ""


class AskStatus(_Command, frozen=True, tag="status"):
    """Tell a `Status` now."""


Command = Pair | Alone | HandOver | Adopt | Checkpoint | AskStatus


class _Event(msgspec.Struct, frozen=True, tag_field="told"):
    pass


class Status(_Event, frozen=True, tag="status"):
    """Where the manager stands; told first on every connection. port: 0 when it does not listen."""

    phase: str
    generation: int
    pairing: int
    epoch: int = 0
    port: int = 0
    peer_host: str = ""
    reason: str = ""


class Listening(_Event, frozen=True, tag="listening"):
    """Standby: a primary may pair with it at this port (TCP, and UDP for keep-alives)."""

    port: int


class Seeding(_Event, frozen=True, tag="seeding"):
    """First copy under way: memory and disks together. At most a few times a second."""

    done_bytes: int
    total_bytes: int
    round: int


class Paired(_Event, frozen=True, tag="paired"):
    """Primary: the standby acknowledged a whole epoch of this pairing. Standby: it holds one."""

    epoch: int
    generation: int
    pairing: int


class PeerLost(_Event, frozen=True, tag="peer-lost"):
    """The other side is silent, gone or wrong. A primary holds, a standby refuses, until the agent decides."""

    reason: str
    silent_ms: float
    epoch: int
    generation: int
    pairing: int


class HandedOver(_Event, frozen=True, tag="handed-over"):
    """The final epoch is with the standby, whole; the primary's guest is stopped."""

    epoch: int
    generation: int
    pairing: int


class WentAlone(_Event, frozen=True, tag="went-alone"):
    """Primary: what was held has left, the guest runs, nobody follows."""

    pairing: int
    released_frames: int


class Adopted(_Event, frozen=True, tag="adopted"):
    """The guest runs here, from that epoch. load_ms: QEMU's part of adopt_ms."""

    epoch: int
    generation: int
    adopt_ms: float
    load_ms: float
    discarded_disk_writes: int = 0
    replayed_frames: int = 0
    stall_ms: float = 0.0


class Checkpointed(_Event, frozen=True, tag="checkpointed"):
    """A checkpoint is whole on the datastore."""

    name: str
    bytes: int
    pause_ms: float
    took_ms: float


class CheckpointFailed(_Event, frozen=True, tag="checkpoint-failed"):
    """A checkpoint was not written; what was there before is untouched."""

    name: str
    reason: str


class Progress(_Event, frozen=True, tag="progress"):
    """How replication went in the last second."""

    epochs: int
    pause_ms_median: float
    pause_ms_p99: float
    dirty_pages: int
    bytes_sent: int
    held_frames: int
    unacknowledged: int
    lag_ms: float
    disk_bytes: int = 0


class Refused(_Event, frozen=True, tag="refused"):
    """A command was not carried out, and nothing was changed."""

    command: str
    reason: str


class BecameFailed(_Event, frozen=True, tag="failed"):
    """Nothing can be promised any more: QEMU does not answer, memory or disk cannot be written."""

    reason: str


Event = (
    Status
    | Listening
    | Seeding
    | Paired
    | PeerLost
    | HandedOver
    | WentAlone
    | Adopted
    | Checkpointed
    | CheckpointFailed
    | Progress
    | Refused
    | BecameFailed
)

T = TypeVar("T")

_COMMAND_DECODER: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)
_EVENT_DECODER: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def encode(message: Command | Event) -> bytes:
    """One line, with its newline."""
    return msgspec.json.encode(message) + b"\n"


def decode_command(line: bytes) -> Command:
    """Read an agent's line. Raises msgspec.DecodeError when it is none."""
    return _decoded(_COMMAND_DECODER, line)


def decode_event(line: bytes) -> Event:
    """Read a manager's line. Raises msgspec.DecodeError when it is none."""
    return _decoded(_EVENT_DECODER, line)


def _decoded(decoder: msgspec.json.Decoder[T], line: bytes) -> T:
    try:
        return decoder.decode(line)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from error


class Manager:
    """An agent's connection to one communication manager, whether it just started it or found it running."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: Status) -> None:
        self._reader = reader
        self._writer = writer
        self.first_status = status

    @classmethod
    async def connect(cls, socket_path: Path, *, within_s: float = CONNECT_S) -> Self:
        """Connect, waiting for a manager that is just starting. Raises ManagerUnreachable."""
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(within_s):
                while True:
                    try:
                        reader, writer = await asyncio.open_unix_connection(socket_path, limit=MOST_LINE_BYTES)
                        break
                    except (FileNotFoundError, ConnectionRefusedError):
                        await asyncio.sleep(0.02)
                first = decode_event(await reader.readline())
            if not isinstance(first, Status):
                raise ManagerUnreachable("The communication manager did not begin with its status.")
            return cls(reader, writer, first)
        except BaseException as error:
            if writer is not None:
                writer.close()
            if not isinstance(error, (OSError, ValueError, msgspec.DecodeError)):
                raise
            cause = str(error) or f"no answer within {within_s:g} s"
            raise ManagerUnreachable(
                f"The communication manager at {socket_path} does not answer.", cause=cause
            ) from error

    async def send(self, command: Command, *, within_s: float = SEND_S) -> None:
        """Give a command; what comes of it is told as events. Raises ManagerUnreachable."""
        try:
            self._writer.write(encode(command))
            async with asyncio.timeout(within_s):
                await self._writer.drain()
        except (OSError, TimeoutError) as error:
            raise ManagerUnreachable("The communication manager took no command.", cause=str(error)) from error

    async def event(self, *, within_s: float) -> Event | None:
        """The next event; None when there was none in time. Raises ManagerUnreachable when the connection ended.

        A manager that is paired tells `Progress` each second, so silence of several seconds means that it hangs.
        """
        try:
            async with asyncio.timeout(within_s):
                line = await self._reader.readline()
        except TimeoutError:
            return None
        except (OSError, ValueError) as error:
            raise ManagerUnreachable("The connection to the communication manager broke.", cause=str(error)) from error
        if not line.endswith(b"\n"):
            raise ManagerUnreachable("The communication manager ended.")
        try:
            return decode_event(line)
        except msgspec.DecodeError as error:
            raise ManagerUnreachable("The communication manager said something unknown.", cause=str(error)) from error

    async def close(self) -> None:
        """End the conversation; the manager goes on."""
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._writer.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def command_line(python: str, config_path: Path) -> list[str]:
    """How a communication manager is started, in the network namespace and control group of its machine."""
    return [python, "-m", "outlive.replication", str(config_path)]
