"""The agent's side of `outlive-guard`: the program that ends what this host acts for when its claim ends.

One guard serves a host for as long as the host acts, through any number of agents: it is found by its socket and
started when none answers. The protocol is described in native/guard.c. What fired stays fired, so nothing here
ever takes protection back. A guard that does not answer in time is treated as lost, since an answer that comes
late would be taken for that to a later question.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from outlive import spawn
from outlive.errors import Degraded, RefusedForSafety

NS_PER_S = 1_000_000_000
MOST_PACKET_BYTES = 8192
RETRY_S = 0.02
ENDING_WITHIN_S = 2.0


class GuardLost(Degraded):
    """No guard answers on this host, so that nothing would end what runs here in time."""

    id = "guard.lost"


class _GuardEnding(GuardLost):
    """The guard that was there is just ending: another try may find it gone, or another in its place."""


class GuardRefused(RefusedForSafety):
    """The guard did not do what it was asked. reason: its word for why."""

    id = "guard.refused"

    def __init__(self, request: str, answer: str) -> None:
        self.reason, _, sentence = answer.partition(" ")
        super().__init__(f"The guard refused {request}.", cause=sentence or self.reason)


@dataclass(frozen=True, slots=True)
class Hello:
    """What the guard could have of what makes it sure: "locked", "fifo:50", "-1000", else the kernel's reason.

    watchdog: the timeout and name of the device that it feeds, as in "2s:softdog"; "2s:not_fed_yet" for one that runs
    and that it may not feed before the next deadline; "none".  device, asked_s: what it was started with; '' where it
    does not tell, being of an earlier version.
    """

    pid: int
    memory: str
    priority: str
    oom: str
    watchdog: str = "none"
    device: str = ""
    asked_s: str = ""

    def feeds(self, wanted: "Watchdog | None") -> bool:
        """Whether it is the guard for this watchdog."""
        if wanted is None:
            return self.watchdog == "none"
        return (self.device, self.asked_s) == (str(wanted.device), str(wanted.timeout_s))

    @property
    def waits(self) -> bool:
        """Whether it has not taken up its device, and protects nothing until it has."""
        return self.watchdog.endswith(":not_fed_yet")

    def lacking(self) -> tuple[str, ...]:
        """Say in words what it could not have; empty when it has all."""
        said = (
            (self.memory == "locked", f"its memory could not be locked ({self.memory})"),
            (self.priority.startswith("fifo"), f"it has no real-time priority ({self.priority})"),
            (self.oom == "-1000", f"it could be killed when memory runs out ({self.oom})"),
        )
        return tuple(sentence for has, sentence in said if not has)


@dataclass(frozen=True, slots=True)
class Watchdog:
    """The hardware watchdog that a guard is to feed. Seconds; longest_s: the longest timeout that is safe."""

    device: Path
    timeout_s: int
    longest_s: int


@dataclass(frozen=True, slots=True)
class Fired:
    """A workload that the guard has ended. late_s: from the deadline until it was certainly down."""

    workload: str
    generation: int
    late_s: float


@dataclass(frozen=True, slots=True)
class Stuck:
    """A workload that the guard has killed and that is not down yet. late_s: since the deadline."""

    workload: str
    generation: int
    late_s: float


@dataclass(frozen=True, slots=True)
class Entry:
    """One workload in the guard's table. state: protected, firing or fired; late_s: as in Fired, once fired."""

    workload: str
    generation: int
    state: str
    late_s: float
    cgroup: Path
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """All that the guard knows. now_at, deadline_at: boot clock, seconds; deadline_at is 0 when there was none."""

    now_at: float
    deadline_at: float
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Listener:
    """Whom a guard's news is told, on the loop: each is called at once and must not raise.

    fired may tell the same again after a new connection.
    """

    fired: Callable[[Fired], None]
    stuck: Callable[[Stuck], None]
    lost: Callable[[], None]


class Guard:
    """A connection to this host's guard. Requests may be made from several tasks; each has its own time limit.

    path:       its socket; there is one guard for each path.
    log:        a local file for what it logs.
    cgroup:     where a guard that is started here goes, outside of all that might be killed; None: ours.
    priority:   real-time priority to ask for, 0 none.
    patience_s: how long any answer may take before the guard counts as lost.
    watchdog:   what a guard that is started here feeds; None: nothing.
    """

    def __init__(
        self,
        path: Path,
        log: Path,
        listener: Listener,
        *,
        cgroup: Path | None = None,
        priority: int = 50,
        patience_s: float = 1.0,
        watchdog: Watchdog | None = None,
    ) -> None:
        self._path = path
        self._log = log
        self._listener = listener
        self._cgroup = cgroup
        self._priority = priority
        self._patience_s = patience_s
        self._watchdog = watchdog
        self._turn = asyncio.Lock()
        self._socket: socket.socket | None = None
        self._heard: asyncio.Queue[str | None] = asyncio.Queue()
        self._greeted = False
        self._process: spawn.Process | None = None

    @property
    def connected(self) -> bool:
        """Whether a guard answered and has not been lost since."""
        return self._greeted

    async def start(self) -> Hello:
        """Connect to the host's guard, starting one when none answers; tell what it has fired so far.

        Raises GuardLost, or ProgramFailed when a guard cannot be started.
        """
        until = asyncio.get_running_loop().time() + ENDING_WITHIN_S
        while True:
            try:
                hello = await self._connect_or_spawn()
                break
            except _GuardEnding:
                if asyncio.get_running_loop().time() >= until:
                    raise
            await asyncio.sleep(RETRY_S)
        for entry in (await self.status()).entries:
            if entry.state == "fired":
                self._listener.fired(Fired(entry.workload, entry.generation, entry.late_s))
        return hello

    def close(self) -> None:
        """Disconnect. The guard goes on without us, with all that it protects."""
        self._disconnect()

    async def deadline(self, at: float, over_at: float = 0.0) -> float:
        """Set until when this host may act (boot clock, seconds); return the deadline in force, which only grows.

        over_at: from when on others may act, by which a watchdog has reset this host if all else failed.
        """
        answer = await self._ask(f"DEADLINE {int(at * NS_PER_S)} {int(max(at, over_at) * NS_PER_S)}")
        return int(answer) / NS_PER_S

    async def whole(self) -> None:
        """Say that all that this host acts for is in its table: what is not there need not be ended by a watchdog."""
        await self._ask("WHOLE")

    async def protect(self, workload: str, generation: int, cgroup: Path, addresses: tuple[str, ...] = ()) -> None:
        """Let the workload's cgroup be killed and its addresses dropped at the deadline.

        addresses: each as `address/prefix%interface`. Raises GuardRefused: its reason is "expired" when no
        deadline is in force, "generation", "fired" (until released), "cgroup", "full", "populated", "watchdog" when
        it could not take up its device, or "malformed".
        """
        if " " in str(cgroup):
            raise GuardRefused("a cgroup", "malformed its path has a space in it")
        await self._ask(" ".join(("PROTECT", workload, str(generation), str(cgroup), *addresses)))

    async def release(self, workload: str, generation: int) -> None:
        """Forget a workload that has been stopped in order. Raises GuardRefused while anything of it runs."""
        until = asyncio.get_running_loop().time() + self._patience_s
        while True:
            try:
                await self._ask(f"RELEASE {workload} {generation}")
                return
            except GuardRefused as refusal:
                if refusal.reason != "firing" or asyncio.get_running_loop().time() >= until:
                    raise
            await asyncio.sleep(RETRY_S)

    async def fence(self, workload: str, generation: int) -> None:
        """End a workload now; that it is down is told as Fired."""
        await self._ask(f"FENCE {workload} {generation}")

    async def status(self) -> Status:
        """Ask for everything that it knows."""
        lines = await self._exchange("STATUS")
        _, now_ns, deadline_ns, _ = lines[0].split(" ")
        return Status(int(now_ns) / NS_PER_S, int(deadline_ns) / NS_PER_S, tuple(_entry(line) for line in lines[1:-1]))

    async def quit(self) -> None:
        """Let it end. Raises GuardRefused while anything is protected."""
        await self._ask("QUIT")
        self._disconnect()

    async def _connect_or_spawn(self) -> Hello:
        try:
            return await self._connect()
        except (FileNotFoundError, ConnectionRefusedError):
            await self._spawn()
        except OSError as error:
            raise GuardLost("The guard cannot be asked.", cause=str(error)) from error
        try:
            return await self._connect()
        except OSError as error:
            raise GuardLost("The guard was started and does not answer.", cause=str(error)) from error

    async def _spawn(self) -> None:
        words = [f"--socket={self._path}", f"--priority={self._priority}"]
        if self._cgroup is not None:
            words.append(f"--cgroup={self._cgroup}")
        if (dog := self._watchdog) is not None:
            words += [f"--watchdog={dog.device}", f"--watchdog-timeout={dog.timeout_s}"]
            words.append(f"--watchdog-longest={dog.longest_s}")
        process, answer = await spawn.start(
            "outlive-guard", words, timeout_s=max(self._patience_s, 5.0), stderr=self._log
        )
        if answer.startswith("ERR another guard"):
            raise _GuardEnding("Another guard is there and does not listen.", cause=answer.removeprefix("ERR "))
        if not answer.startswith("OK "):
            raise GuardLost("The guard could not be started.", cause=answer.removeprefix("ERR "))
        # Watched to its end, so that it is reaped should it end before the agent.
        self._process = process

    async def _connect(self) -> Hello:
        self._disconnect()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            connection.connect(str(self._path))
        except OSError:
            connection.close()
            raise
        self._socket = connection
        self._heard = asyncio.Queue()
        asyncio.get_running_loop().add_reader(connection, self._on_readable, connection)
        hello = _hello(await self._hear("HELLO"))
        self._greeted = True
        return hello

    async def _ask(self, request: str) -> str:
        """One request, one answer: what follows its OK."""
        answer = (await self._exchange(request))[0]
        return answer.removeprefix("OK").strip()

    async def _exchange(self, request: str) -> list[str]:
        async with self._turn:
            if self._socket is None:
                raise GuardLost("There is no connection to the guard.")
            try:
                self._socket.send(request.encode())
            except OSError as error:
                self._lose()
                raise GuardLost("The guard cannot be asked.", cause=str(error)) from error
            lines = [await self._hear(request)]
            if lines[0].startswith("ERR "):
                raise GuardRefused(" ".join(request.split(" ")[:3]), lines[0].removeprefix("ERR "))
            while lines[0].startswith("STATE ") and lines[-1] != "END":
                lines.append(await self._hear(request))
            return lines

    async def _hear(self, request: str) -> str:
        try:
            async with asyncio.timeout(self._patience_s):
                line = await self._heard.get()
        except TimeoutError as error:
            self._lose()
            raise GuardLost(
                f"The guard did not answer within {self._patience_s:g} s.", cause=f"asked for {request}"
            ) from error
        except asyncio.CancelledError:
            self._lose()  # its answer would be taken for the next one's
            raise
        if line is None:
            raise _GuardEnding("The guard ended.", cause=f"asked for {request}")
        return line

    def _on_readable(self, connection: socket.socket) -> None:
        """Take every packet that is there: news is told, answers wait for whoever asked."""
        while self._socket is connection:
            try:
                packet = connection.recv(MOST_PACKET_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                packet = b""
            if not packet:
                self._lose()
                return
            line = packet.decode(errors="replace")
            word = line.partition(" ")[0]
            if word == "FIRED":
                self._listener.fired(Fired(*_news(line)))
            elif word == "STUCK":
                self._listener.stuck(Stuck(*_news(line)))
            else:
                self._heard.put_nowait(line)

    def _lose(self) -> None:
        if self._socket is not None:
            greeted = self._greeted
            self._disconnect()
            self._heard.put_nowait(None)
            if greeted:
                self._listener.lost()

    def _disconnect(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
            self._greeted = False


def _hello(line: str) -> Hello:
    word, *fields = line.split(" ")
    told = dict(field.partition("=")[::2] for field in fields)
    pid = told.get("pid", "")
    if word != "HELLO" or not (pid.isascii() and pid.isdigit() and len(pid) < 20):
        raise GuardLost("What answers as the guard is none.", cause=line)
    memory, priority, oom, device, asked_s = (
        told.get(name, "") for name in ("memory", "priority", "oom", "device", "asked")
    )
    return Hello(int(pid), memory, priority, oom, told.get("watchdog", "none"), device, asked_s)


def _news(line: str) -> tuple[str, int, float]:
    _, workload, generation, late_ns = line.split(" ")
    return workload, int(generation), int(late_ns) / NS_PER_S


def _entry(line: str) -> Entry:
    _, workload, generation, state, late_ns, cgroup, *addresses = line.split(" ")
    return Entry(workload, int(generation), state, int(late_ns) / NS_PER_S, Path(cgroup), tuple(addresses))
