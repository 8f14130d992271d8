"""The standby's end of one pairing: takes steps, acknowledges the whole ones, applies them in order.

One thread receives: an epoch's pages are checked and its disk writes read as they come, and when its end has come and
everything before it is there, its disk writes are logged, it is the newest whole one, and it is acknowledged. Another
thread applies. A third keeps the pulse. The invariant: what `freeze` returns is a whole epoch, applied in full and
nothing beyond; after it nothing is acknowledged any more, so the primary can let go of nothing newer.
"""

import contextlib
import queue
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from outlive.errors import Failed
from outlive.replication import handshake
from outlive.replication.comm_config import HotValues
from outlive.replication.control import OWN_DISK
from outlive.replication.device_state import check as check_state
from outlive.replication.disk_copy import DiskCopies, DiskCopyBroken
from outlive.replication.disk_writes import DiskWrite, unpack
from outlive.replication.feed import FINAL, SEEDING, SEEDING_SILENCE_S
from outlive.replication.handshake import Hello, StepHead
from outlive.replication.keepalive import KeepAlive
from outlive.replication.kernels import Checked, apply, check
from outlive.replication.link import Link, LinkBroken
from outlive.replication.memory import Memory
from outlive.replication.ports import Ports
from outlive.replication.stream import Kind, Message, Receiver, Reign, Sender, StreamGarbage

UNAPPLIED_EPOCHS = 2
REPEATED_EPOCHS = 3
MOST_INBOUND_BYTES = 4 << 20
_SPARE_BYTES = 256 << 20
_ACKNOWLEDGE_S = 5.0
_APPLY_S = 30.0

_log = structlog.get_logger()


@dataclass(slots=True)
class _Open:
    """What came of a step so far."""

    pages: list[Checked] = field(default_factory=list)
    payloads: list[memoryview] = field(default_factory=list)
    writes: list[DiskWrite] = field(default_factory=list)
    page_messages: int = 0
    disk_messages: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class Whole:
    """The newest whole epoch, as it is to be adopted. inbound: frames by port, oldest first."""

    epoch: int
    prefix: bytes
    state: bytes
    inbound: list[tuple[int, bytes]]
    output: list[list[bytes]]
    discarded_writes: int
    stalled_s: float


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What a pairing tells, from its own threads. lost: reason, silence in seconds, newest whole epoch."""

    paired: Callable[[int], None]
    handed_over: Callable[[int], None]
    lost: Callable[[str, float, int], None]


class Following:
    """One pairing, from its welcome on."""

    def __init__(
        self,
        connection: Link,
        receiver: Receiver,
        sender: Sender,
        hello: Hello,
        reign: Reign,
        memory: Memory,
        disks: DiskCopies,
        ports: Ports,
        datagrams: socket.socket,
        hot: HotValues,
        callbacks: Callbacks,
    ) -> None:
        self.reign = reign
        self.primary_host = hello.host
        self.epoch = 0
        self._link = connection
        self._receiver = receiver
        self._sender = sender
        self._memory = memory
        self._disks = disks
        self._disk_lock = threading.Lock()
        self._ports = ports
        self._port_count = len(hello.ports)
        self._hot = hot
        self._callbacks = callbacks
        self._open = _Open()
        self._prefix = b""
        self._state = b""
        self._inbound: list[tuple[int, bytes]] = []
        self._inbound_before: list[tuple[int, bytes]] = []
        self._output: deque[list[bytes]] = deque(maxlen=REPEATED_EPOCHS)
        self._last_step = 0
        self._applied = 0
        self._to_apply: queue.Queue[tuple[int, _Open] | None] = queue.Queue(UNAPPLIED_EPOCHS)
        self._decision = threading.Lock()
        self._over = False
        self._spoilt = False
        self._threads = [
            threading.Thread(target=self._receive_all, name="receive", daemon=True),
            threading.Thread(target=self._apply_all, name="apply", daemon=True),
        ]
        self._keepalive = KeepAlive(
            datagrams,
            reign,
            hello.key,
            primary=False,
            progress=lambda: self._link.received_bytes + self._applied,
            other_sign=lambda: self._link.heard_at,
            judge=self._judge,
            limit_s=self._silence_limit_s,
        )

    def start(self) -> None:
        for thread in self._threads:
            thread.start()
        self._keepalive.start()

    def freeze(self) -> Whole | None:
        """Refuse whatever else comes, finish applying, and return the newest whole epoch; None without one.

        Raises Failed when applying does not end.
        """
        with self._decision:
            self._over = True
        self._link.close()
        self._keepalive.stop()
        self._to_apply.put(None, timeout=_APPLY_S)
        self._threads[1].join(_APPLY_S)
        self._threads[0].join(_APPLY_S)
        if any(thread.is_alive() for thread in self._threads):
            raise Failed("The last epoch could not be applied in time.")
        self._link.dispose()
        if not self.epoch:
            return None
        return Whole(
            self.epoch,
            self._prefix,
            self._state,
            [*self._inbound_before, *self._inbound],
            list(self._output),
            len(self._open.writes),
            self._keepalive.silence.stalled_s,
        )

    def end(self) -> None:
        """Forget this pairing: a newer one took its place, or the manager ends."""
        self.freeze()
        self.epoch = 0

    def _lose(self, reason: str, silent_s: float) -> None:
        with self._decision:
            if self._over:
                return
            self._over = True
        self._keepalive.stop()
        self._link.close()
        _log.warning("primary.lost", because=reason, epoch=self.epoch, silent_ms=round(silent_s * 1000))
        self._callbacks.lost(reason, silent_s, self.epoch)

    def _judge(self, silent_s: float, stuck_s: float) -> None:
        if silent_s >= self._silence_limit_s():
            self._lose("silence", silent_s)
        elif self.epoch and stuck_s >= self._hot.progress_s:
            self._lose("no-progress", silent_s)

    def _silence_limit_s(self) -> float:
        return self._hot.silence_ms / 1000 if self.epoch else SEEDING_SILENCE_S

    def _receive_all(self) -> None:
        try:
            while not (self._over or self._spoilt):
                self._take(self._receiver.receive(None))
        except LinkBroken:
            self._lose("end-of-stream", 0.0)
        except DiskCopyBroken as error:
            self._lose(f"{OWN_DISK} {error}", 0.0)
        except Failed as error:
            self._lose(f"garbage: {error}", 0.0)
        except Exception:
            _log.exception("receiving.failed")
            self._lose("a fault of the manager itself, while receiving", 0.0)

    def _take(self, message: Message) -> None:
        match message.kind:
            case Kind.PAGES:
                self._take_pages(message)
            case Kind.DISK:
                self._take_disk(message)
            case Kind.INPUT:
                self._take_inbound(message.payload)
            case Kind.EPOCH if message.epoch != self._last_step + 1:
                raise StreamGarbage("A step is missing.", cause=f"{message.epoch} came after {self._last_step}")
            case Kind.EPOCH if message.flags & SEEDING:
                self._end_seeding_step(message)
            case Kind.EPOCH:
                self._end_epoch(message)
            case Kind.PREFIX if not self._prefix:
                self._prefix = bytes(message.payload)
            case Kind.BYE:
                self._lose(bytes(message.payload[:1000]).decode(errors="replace"), 0.0)
            case _:
                raise StreamGarbage("A message came out of place.", cause=message.kind.name)

    def _take_pages(self, message: Message) -> None:
        checked = check(message.payload, self._memory.pages)
        self._open.page_messages += 1
        if message.flags & SEEDING and not self.epoch:
            apply(checked, self._memory)
            return
        self._open.pages.append(checked)
        self._grow(len(message.payload))

    def _take_disk(self, message: Message) -> None:
        writes = unpack(message.payload, self._disks.sizes)
        self._open.disk_messages += 1
        if message.flags & SEEDING and not self.epoch:
            with self._disk_lock:
                self._disks.seed(self.reign.generation, self.reign.pairing, writes)
            return
        self._open.payloads.append(message.payload)
        self._open.writes += writes
        self._grow(len(message.payload))

    def _grow(self, size: int) -> None:
        self._open.size += size
        if self._open.size > self._memory.size_bytes * 2 + _SPARE_BYTES:
            raise StreamGarbage("An epoch is larger than its machine.")

    def _take_inbound(self, payload: memoryview) -> None:
        port = int.from_bytes(payload[:4], "little")
        if port >= self._port_count:
            raise StreamGarbage("Frames came for a port that does not exist.", cause=str(port))
        self._inbound.append((port, bytes(payload[4:])))
        while sum(len(frames) for _, frames in self._inbound) > MOST_INBOUND_BYTES:
            self._inbound.pop(0)

    def _end_seeding_step(self, message: Message) -> None:
        if self.epoch:
            raise StreamGarbage("A first copy came after a whole epoch.")
        self._whole_step(message)
        with self._disk_lock:
            self._disks.seeded(self.reign.generation, self.reign.pairing, message.epoch)
        self._finish_step(message.epoch)
        self._acknowledge(message.epoch)

    def _end_epoch(self, message: Message) -> None:
        _, compressed, output = self._whole_step(message)
        state = handshake.unpack_state(compressed)
        check_state(state)
        if not self._prefix:
            raise StreamGarbage("An epoch came before the prefix.")
        step = self._open
        with self._disk_lock:
            self._disks.commit(self.reign.generation, self.reign.pairing, message.epoch, step.payloads)
        step.payloads = []
        first = not self.epoch
        with self._decision:
            if self._over or self._spoilt:
                return
            # Whole from here on: this very epoch is adopted, and only now the primary is told.
            self.epoch, self._state = message.epoch, state
            self._output.append(output)
            self._inbound_before, self._inbound = self._inbound, []
            self._finish_step(message.epoch)
            try:
                self._acknowledge(message.epoch)
            finally:
                # A primary that dies before it hears of it leaves a whole epoch all the same, of which this is a part.
                self._have_applied(message.epoch, step)
        if first:
            self._callbacks.paired(message.epoch)
        if message.flags & FINAL:
            self._callbacks.handed_over(message.epoch)

    def _have_applied(self, epoch: int, step: _Open) -> None:
        self._ports.forget_kept()
        try:
            self._to_apply.put((epoch, step), timeout=_APPLY_S)
        except queue.Full:
            self._spoil()
            raise

    def _spoil(self) -> None:
        """What lies here is no whole epoch, and no later one makes it whole: never to be adopted."""
        self._spoilt = True
        self.epoch = 0

    def _whole_step(self, message: Message) -> tuple[StepHead, memoryview, list[bytes]]:
        head, state, output = handshake.unpack_step(message.payload, self._port_count)
        if (head.pages, head.writes) != (self._open.page_messages, self._open.disk_messages):
            raise StreamGarbage("A step came without all of its parts.")
        return head, state, output

    def _finish_step(self, step: int) -> None:
        self._last_step = step
        self._open = _Open()

    def _acknowledge(self, step: int) -> None:
        self._sender.send(Kind.ACKNOWLEDGED, epoch=step, within_s=_ACKNOWLEDGE_S)

    def _apply_all(self) -> None:
        while (item := self._to_apply.get()) is not None:
            epoch, step = item
            try:
                for checked in step.pages:
                    apply(checked, self._memory)
                with self._disk_lock:
                    self._disks.apply(self.reign.generation, self.reign.pairing, epoch, step.writes)
                self._applied += 1
            except Exception as error:
                _log.error("applying.failed", because=str(error))
                self._spoilt = True
                # The receiving thread may wait for room here, with the decision in its hands.
                ended = self._drained()
                with self._decision:
                    self._spoil()
                self._lose(f"cannot be applied: {error}", 0.0)
                while not ended:
                    ended = self._to_apply.get() is None
                return

    def _drained(self) -> bool:
        """Throw away what waits to be applied; whether the end was among it."""
        with contextlib.suppress(queue.Empty):
            while self._to_apply.get_nowait() is not None:
                pass
            return True
        return False
