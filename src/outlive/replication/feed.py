"""The primary's end of one pairing: sends steps, takes acknowledgements, keeps the standby's pulse.

Three threads: one sends (it packs pages, with the interpreter's lock released), one reads acknowledgements and lets
frames go, one keeps alive. The epoch loop hands over steps and does not wait for the network: it sends a step itself
only where the way is free. When too much is under way it waits, and the guest with it. A feed that is lost stays lost;
a new pairing is a new feed. The invariant: `acknowledged` of a step is said once, in order, and only for steps that
were handed over, and that it is lost is said once.
"""

import queue
import secrets
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog
import zstandard

from outlive.errors import Failed
from outlive.replication import handshake, link
from outlive.replication.comm_config import CommConfig, HotValues
from outlive.replication.control import Pair
from outlive.replication.control_server import Wake
from outlive.replication.disk_writes import DiskLabel, DiskWrite, pack
from outlive.replication.handshake import DiskShape, Hello, StepHead, Welcome
from outlive.replication.keepalive import KEY_BYTES, KeepAlive
from outlive.replication.kernels import Packer, Staging
from outlive.replication.link import Bandwidth, LinkBroken, boot_s
from outlive.replication.memory import PAGE_BYTES
from outlive.replication.ports import Ports
from outlive.replication.stream import HEADER_BYTES, Bytes, Kind, Receiver, Reign, Sender, StalePeer

STAGING_PAGES = 4096
STAGINGS = 6
SEEDING, FINAL = 1, 2
"""Flags of EPOCH: a step of the first copy, applied at once; the last epoch of a hand-over."""

CONNECT_S = 5.0
_THREADS_END_S = 2.0
_SENT_AT_ONCE_BYTES = 1 << 20
PRIMARY_NOTICES_SOONER = 0.75
"""Of the standby's threshold: when a link is cut and both live, the side that serves clients asks the store first."""

SEEDING_SILENCE_S = 3.0
"""While nothing depends on the standby yet, it is given more time."""

_log = structlog.get_logger()


class StandbyUnfit(Failed):
    """The standby did not welcome this machine."""

    id = "replication.standby_unfit"


@dataclass(slots=True)
class Step:
    """What one step changes. pages: stagings to be sent and given back. state: empty while seeding.

    part: pages of a step whose end is still to come. prefix: of the machine's device states, before the first step.
    """

    number: int
    pages: list[Staging] = field(default_factory=list)
    writes: list[DiskWrite] = field(default_factory=list)
    state: bytes = b""
    output: list[bytes] = field(default_factory=list)
    part: bool = False
    seeding: bool = False
    final: bool = False
    sent_at: float = 0.0
    prefix: bytes = b""

    @property
    def most_bytes(self) -> int:
        """What there is to send, before it is packed."""
        pages = sum(staging.pages for staging in self.pages) * PAGE_BYTES
        writes = sum(write.length for write in self.writes)
        return pages + writes + len(self.state) + sum(map(len, self.output))


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What a feed tells, from its own threads. acknowledged: a step's number. lost: reason, silence in seconds."""

    acknowledged: Callable[[int, bool], None]
    lost: Callable[[str, float], None]


class Feed:
    """One pairing, from the first connection until it is lost or ended.

    whole: the standby acknowledged a whole epoch.
    """

    def __init__(self, config: CommConfig, pair: Pair, ports: Ports, callbacks: Callbacks, wake: Wake) -> None:
        assert config.hot is not None
        self.hot: HotValues = config.hot
        self.reign = Reign(config.cluster, config.workload, pair.generation, pair.pairing)
        self.peer_host = pair.standby_host
        self.labels: tuple[DiskLabel, ...] = ()
        self.whole = False
        self._relied_on = False
        self.bytes_sent = 0
        self.lag_s = 0.0
        self._config = config
        self._pair = pair
        self._ports = ports
        self._callbacks = callbacks
        self._wake = wake
        ram_pages = config.ram_bytes // 4096
        shadow = min(config.ram_bytes, self.hot.shadow_mib << 20)
        self._inbound_bytes = 0
        self._page_messages = 0
        self._packer = Packer(ram_pages, shadow_bytes=shadow, room_pages=STAGING_PAGES)
        self.stagings: queue.SimpleQueue[Staging] = queue.SimpleQueue()
        for _ in range(STAGINGS):
            self.stagings.put(Staging(min(STAGING_PAGES, ram_pages)))
        self._compressor = zstandard.ZstdCompressor(level=1)
        self._steps: deque[Step] = deque()
        self._steps_wake = Wake()
        self._under_way: deque[Step] = deque()
        self._under_way_lock = threading.Lock()
        self._lost = threading.Event()
        self._losing = threading.Lock()
        self._sending = threading.Lock()
        self._link: link.Link | None = None
        self._keepalive: KeepAlive | None = None
        self._datagrams: socket.socket | None = None
        self._threads: list[threading.Thread] = []

    def connect(self) -> None:
        """Connect and be welcomed. Raises LinkBroken, StalePeer, StandbyUnfit."""
        config, pair = self._config, self._pair
        limit = Bandwidth(None if self.hot.bandwidth_mib_s is None else self.hot.bandwidth_mib_s * (1 << 20))
        self._link = connection = link.connect(pair.address, pair.port, config.tls, limit, CONNECT_S)
        if config.tls is not None and connection.peer_name != pair.standby_host:
            connection.close()
            raise StandbyUnfit("Another host answered than the standby.", cause=connection.peer_name)
        key = secrets.token_bytes(KEY_BYTES)
        hello = Hello(
            config.cluster,
            config.workload,
            pair.generation,
            pair.pairing,
            config.host,
            config.ram_bytes,
            tuple(DiskShape(disk.name, disk.size_bytes) for disk in config.disks),
            tuple(nic.mac for nic in config.nics),
            key,
        )
        self._sender = Sender(connection, self.reign)
        self._sender.send(Kind.HELLO, [handshake.pack(hello)], within_s=CONNECT_S)
        self._receiver = Receiver(connection, self.reign)
        welcome = handshake.unpack(self._receiver.receive(CONNECT_S + self.hot.progress_s).payload, Welcome)
        if welcome.answer != "welcome":
            connection.close()
            kind = StalePeer if welcome.answer == "stale" else StandbyUnfit
            raise kind("The standby refused this machine.", cause=welcome.reason)
        self.labels = welcome.disks
        datagrams = socket.socket(socket.AF_INET6 if ":" in pair.address else socket.AF_INET, socket.SOCK_DGRAM)
        self._datagrams = datagrams
        datagrams.connect((pair.address, pair.port))
        self._keepalive = KeepAlive(
            datagrams,
            self.reign,
            key,
            primary=True,
            # A hung machine still takes frames in: copies of these are no progress.
            progress=lambda: max(0, connection.sent_bytes - self._inbound_bytes),
            other_sign=lambda: connection.heard_at,
            judge=self._judge,
            limit_s=self._silence_limit_s,
        )
        # The standby counts our silence from its welcome on, whatever is still to be done here before the first step.
        self._keepalive.start()

    def start(self, prefix: bytes) -> None:
        """Begin the threads; the prefix of the machine's device states goes out first."""
        self._steps.append(Step(0, part=True, prefix=prefix))
        self._steps_wake.set()
        self._threads = [
            threading.Thread(target=self._send_all, name="send", daemon=True),
            threading.Thread(target=self._receive_all, name="acknowledgements", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def lost(self) -> bool:
        return self._lost.is_set()

    @property
    def unacknowledged(self) -> int:
        return len(self._under_way)

    def room(self, most: int) -> bool:
        """Whether another step may be handed over: bounded steps and bytes are under way."""
        return len(self._under_way) < most

    def put(self, step: Step) -> None:
        """Hand over the next step. A small one is sent here and now, since waking a thread takes about as long.

        But only where that does not wait: commands and the guest's next epoch are not to stand behind a slow link.
        """
        step.sent_at = boot_s()
        self._relied_on = self._relied_on or not step.seeding
        at_once = self._way_is_free and not step.seeding and step.most_bytes <= _SENT_AT_ONCE_BYTES
        with self._under_way_lock:
            self._under_way.append(step)
        self._steps.append(step)
        if at_once and self._sending.acquire(blocking=False):
            try:
                self._guarded(self._send_waiting)
            finally:
                self._sending.release()
        if self._steps:
            self._steps_wake.set()

    @property
    def _way_is_free(self) -> bool:
        # What is acknowledged has left every buffer between us. A limited bandwidth is kept by sleeping.
        return not self._steps and not self._under_way and self.hot.bandwidth_mib_s is None

    def put_pages(self, number: int, pages: list[Staging]) -> None:
        """Hand over pages of the next step ahead of its end; they mean nothing to the standby before that."""
        self._steps.append(Step(number, pages, part=True))
        self._steps_wake.set()

    def close(self, reason: str = "") -> None:
        """End it without calling back; for the thread that made it. reason: told to the standby if it can be."""
        self._lost.set()
        if self._keepalive is not None:
            self._keepalive.stop()
        self._steps_wake.set()
        if self._link is not None:
            if reason:
                self._say_bye(reason)
            self._link.close()
            for thread in self._threads:
                thread.join(_THREADS_END_S)
            if not any(thread.is_alive() for thread in self._threads):
                self._link.dispose()
        if self._datagrams is not None:
            self._datagrams.close()

    def _say_bye(self, reason: str) -> None:
        assert self._link is not None
        # The sender's thread may be within a message; a farewell would only be garbage then.
        if not self._sending.acquire(timeout=0.2):
            return
        try:
            self._sender.send(Kind.BYE, [reason.encode()[:1000]], within_s=0.2)
        except LinkBroken:
            return
        finally:
            self._sending.release()

    def _lose(self, reason: str, silent_s: float) -> None:
        with self._losing:
            if self._lost.is_set():
                return
            self._lost.set()
        assert self._link is not None
        assert self._keepalive is not None
        self._keepalive.stop()
        self._link.close()
        self._steps_wake.set()
        self._callbacks.lost(reason, silent_s)
        self._wake.set()

    def _judge(self, silent_s: float, stuck_s: float) -> None:
        if self._given_up_by_now():
            self._lose("this manager itself stood still", silent_s)
        elif silent_s >= self._silence_limit_s():
            self._lose("silence", silent_s)
        elif stuck_s >= self.hot.progress_s and self._oldest_s() >= self.hot.progress_s:
            self._lose("no-progress", silent_s)

    def _given_up_by_now(self) -> bool:
        """Whether we stood still for so long, as a paused host does, that the standby may have asked to take over.

        An acknowledgement that lay here meanwhile is true, but another host may already speak for the machine: from
        when the first whole epoch is sent, since the standby has it before we hear of that.
        """
        assert self._keepalive is not None
        return self._relied_on and boot_s() - self._keepalive.told_at >= self.hot.silence_ms / 1000

    def _silence_limit_s(self) -> float:
        return self.hot.silence_ms / 1000 * PRIMARY_NOTICES_SOONER if self.whole else SEEDING_SILENCE_S

    def _oldest_s(self) -> float:
        try:
            return boot_s() - self._under_way[0].sent_at
        except IndexError:
            return 0.0

    def _send_all(self) -> None:
        while not self._lost.is_set():
            select.select([self._steps_wake.fileno(), *self._ports.copied], [], [], 1.0)
            self._steps_wake.clear()
            with self._sending:
                self._guarded(self._send_waiting)

    def _guarded(self, send: Callable[[], object]) -> None:
        try:
            send()
        except Failed as error:
            self._lose(f"sending: {error}", 0.0)
        except Exception:
            # A thread that ends unheard would let everything wait for ever.
            _log.exception("sending.failed")
            self._lose("a fault of the manager itself, while sending", 0.0)

    def _send_waiting(self) -> None:
        while self._steps and not self._lost.is_set():
            self._send_step(self._steps.popleft())
            self._send_inbound()
        self._send_inbound()

    def _send_inbound(self) -> None:
        for port, frames in self._ports.take_copied():
            self._inbound_bytes += HEADER_BYTES + 4 + len(frames)
            self._send(Kind.INPUT, [port.to_bytes(4, "little"), frames])

    def _send_step(self, step: Step) -> None:
        if step.prefix:
            self._send(Kind.PREFIX, [step.prefix])
        seeding = SEEDING if step.seeding else 0
        self._page_messages += len(step.pages)
        while step.pages:
            staging = step.pages[0]
            self._send(Kind.PAGES, [self._packer.encode(staging)], epoch=step.number, flags=seeding)
            step.pages.pop(0)
            self.stagings.put(staging)
        if step.part:
            return
        messages = 0
        for parts in pack(step.writes):
            self._send(Kind.DISK, parts, epoch=step.number, flags=seeding)
            messages += 1
        step.writes = []
        state = self._compressor.compress(step.state) if step.state else b""
        head = StepHead(self._page_messages, messages, len(state), tuple(len(frames) for frames in step.output))
        self._page_messages = 0
        flags = seeding | (FINAL if step.final else 0)
        self._send(Kind.EPOCH, [handshake.pack_head(head), state, *step.output], epoch=step.number, flags=flags)
        step.output, step.state = [], b""

    def _send(self, kind: Kind, parts: Sequence[Bytes], *, epoch: int = 0, flags: int = 0) -> None:
        self.bytes_sent += self._sender.send(kind, parts, epoch=epoch, flags=flags, within_s=self.hot.progress_s)

    def _receive_all(self) -> None:
        try:
            while not self._lost.is_set():
                message = self._receiver.receive(None)
                if message.kind is Kind.BYE:
                    self._lose("standby: " + bytes(message.payload[:1000]).decode(errors="replace"), 0.0)
                    return
                if message.kind is not Kind.ACKNOWLEDGED:
                    self._lose("garbage", 0.0)
                    return
                self._acknowledge(message.epoch)
        except LinkBroken:
            self._lose("end-of-stream", 0.0)
        except Failed as error:
            self._lose(f"garbage: {error}", 0.0)
        except Exception:
            _log.exception("acknowledging.failed")
            self._lose("a fault of the manager itself, while reading acknowledgements", 0.0)

    def _acknowledge(self, number: int) -> None:
        if self._given_up_by_now():
            self._lose("this manager itself stood still", 0.0)
            return
        with self._under_way_lock:
            if self._lost.is_set() or not self._under_way or self._under_way[0].number != number:
                raise LinkBroken("The standby acknowledged what it was not sent.")
            step = self._under_way.popleft()
        self.lag_s = boot_s() - step.sent_at
        self.whole = self.whole or not step.seeding
        self._callbacks.acknowledged(number, step.final)
        self._wake.set()
