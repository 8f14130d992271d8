"""The standby: QEMU waits for its state, the manager keeps the newest whole epoch and knows when to ask.

The main thread takes the agent's commands; a thread admits primaries, one at a time, newest reign first. A pairing
that was lost is never taken up again: its epochs are refused from then on, until the agent says `adopt` (then this
host's guest is that epoch) or a newer pairing begins (then it is forgotten). The invariant: nothing is ever adopted but
the newest acknowledged epoch of the newest reign that was welcomed.
"""

import contextlib
import mmap
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import structlog

from outlive.errors import Failed
from outlive.replication import device_state, handshake
from outlive.replication.comm_config import CommConfig
from outlive.replication.control import (
    Adopt,
    Adopted,
    BecameFailed,
    Command,
    HandedOver,
    Listening,
    Paired,
    PeerLost,
    Refused,
    Status,
)
from outlive.replication.control_server import ControlServer, Wake
from outlive.replication.disk_copy import DiskCopies
from outlive.replication.follow import Callbacks, Following, Whole
from outlive.replication.handshake import Hello, Welcome
from outlive.replication.link import Link, LinkBroken, accepted, boot_s
from outlive.replication.memory import Memory
from outlive.replication.ports import Freedom, Ports
from outlive.replication.qmp_line import QmpLine
from outlive.replication.stream import Kind, Receiver, Reign, Sender, StreamGarbage

_HELLO_S = 5.0
_WELCOME_S = 5.0
_IDLE_S = 1.0
_QEMU_STARTS_S = 20.0
_RELEASE_S = 10.0

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class TookOver:
    """What the primary that this standby became works on."""

    generation: int
    pairing: int
    memory: Memory
    qmp: QmpLine


class Standby:
    """One machine's standby, until it adopts."""

    def __init__(self, config: CommConfig, control: ControlServer, wake: Wake, ports: Ports) -> None:
        assert config.hot is not None
        self._config = config
        self._hot = config.hot
        self._control = control
        self._wake = wake
        self._ports = ports
        self._newest = (config.generation, config.pairing)
        self._phase = "listening"
        self._reason = ""
        self._following: Following | None = None
        self._changing = threading.Lock()
        self._took_over: TookOver | None = None
        self._memory = Memory.map_file(Path(config.ram_path), config.ram_bytes, writable=True)
        self._disks = DiskCopies(config.disks, Path(config.state_dir), durable=self._hot.sync_disks)
        self._qmp = _waiting_qemu(config.qmp)
        self._listener, self._datagrams = _listen(config.listen_address, config.listen_port)
        self.port: int = self._listener.getsockname()[1]
        self._admitting = threading.Thread(target=self._admit_all, name="admit", daemon=True)

    def status(self) -> Status:
        """Where it stands; from any thread."""
        following = self._following
        generation, pairing = self._newest
        epoch = following.epoch if following is not None else 0
        peer = following.primary_host if following is not None else ""
        return Status(self._phase, generation, pairing, epoch, self.port, peer, self._reason)

    def run(self) -> TookOver:
        """Serve until it took over, which is returned."""
        self._admitting.start()
        self._control.tell(Listening(self.port))
        try:
            while True:
                self._wake.wait(_IDLE_S)
                while (command := self._control.command()) is not None:
                    self._obey(command)
                    if self._took_over is not None:
                        return self._took_over
        finally:
            self._end()

    def _obey(self, command: Command) -> None:
        match command:
            case Adopt():
                self._adopt(command)
            case _:
                self._control.tell(Refused(type(command).__name__, "a standby does not do that"))

    def _adopt(self, adopt: Adopt) -> None:
        begun = boot_s()
        with self._changing:
            following = self._following
            generation, pairing = self._newest
            if following is None or not following.epoch or adopt.generation <= generation:
                reason = "there is no whole epoch" if following is None or not following.epoch else "it is over"
                self._control.tell(Refused("Adopt", reason))
                return
            self._phase = "adopting"
            try:
                whole = following.freeze()
                frozen_s = boot_s() - begun
                if whole is None:
                    raise Failed("The newest epoch could not be applied.")
                load_s, replayed = self._become(whole)
            except Failed as error:
                self._phase, self._reason = "failed", str(error)
                self._control.tell(BecameFailed(str(error)))
                return
            self._took_over = TookOver(adopt.generation, pairing, self._memory, self._qmp)
            told = Adopted(
                epoch=whole.epoch,
                generation=adopt.generation,
                adopt_ms=(boot_s() - begun) * 1000,
                load_ms=load_s * 1000,
                discarded_disk_writes=whole.discarded_writes,
                replayed_frames=replayed,
                stall_ms=whole.stalled_s * 1000,
            )
        self._control.tell(told)
        _log.info(
            "adopted",
            epoch=whole.epoch,
            adopt_ms=round(told.adopt_ms, 1),
            load_ms=round(told.load_ms, 1),
            frozen_ms=round(frozen_s * 1000, 1),
        )

    def _become(self, whole: Whole) -> tuple[float, int]:
        # The disks' log must be gone for good before the guest writes, not before its devices are loaded.
        with ThreadPoolExecutor(1, "release") as beside:
            released = beside.submit(self._disks.release)
            began = time.perf_counter()
            device_state.load(self._qmp, whole.prefix, whole.state)
            load_s = time.perf_counter() - began
            released.result(_RELEASE_S)
        if self._qmp.run("query-status")["status"] != "running":
            self._qmp.run("cont")
        self._ports.connect()
        # Switches learn the way from the first of these; peers need not wait for their retransmission timers.
        self._ports.announce()
        self._ports.free(Freedom.TOOK_OVER)
        replayed = 0
        try:
            replayed = self._ports.replay(whole.inbound, whole.output)
        except Failed as error:
            _log.warning("replay.failed", because=str(error))  # peers' own timers will do what it is for
        announced = {"initial": 50, "max": 550, "rounds": 5, "step": 100}
        self._qmp.run("announce-self", announced)
        _keep_prefix(self._config, whole.prefix)
        return load_s, replayed

    def _admit_all(self) -> None:
        while True:
            try:
                connection, address = self._listener.accept()
            except OSError:
                return
            try:
                peer = accepted(connection, self._config.tls)
                try:
                    self._admit(peer)
                except BaseException:
                    peer.dispose()
                    raise
            except Failed as error:
                _log.warning("primary.refused", address=address[0], because=str(error))
            except Exception:
                # The next primary is to find somebody here whatever this one was.
                _log.exception("admitting.failed", address=address[0])

    def _admit(self, connection: Link) -> None:
        receiver = Receiver(connection)
        message = receiver.receive(_HELLO_S)
        if message.kind is not Kind.HELLO:
            raise StreamGarbage("The stream does not begin with its first words.")
        hello = handshake.unpack(message.payload, Hello)
        reign = Reign(hello.cluster, hello.workload, hello.generation, hello.pairing)
        receiver.bind(reign)
        sender = Sender(connection, reign)
        with self._changing:
            refusal = self._refusal(hello, reign, connection)
            if refusal is not None:
                sender.send(Kind.WELCOME, [handshake.pack(refusal)], within_s=_WELCOME_S)
                raise Failed("A primary was refused.", cause=refusal.reason)
            self._begin(connection, receiver, sender, hello, reign)

    def _begin(self, connection: Link, receiver: Receiver, sender: Sender, hello: Hello, reign: Reign) -> None:
        if self._following is not None:
            self._following.end()
        self._newest, self._phase, self._reason = reign.age, "listening", ""
        _empty(self._memory)
        welcome = Welcome("welcome", self._config.host, disks=tuple(self._disks.labels))
        sender.send(Kind.WELCOME, [handshake.pack(welcome)], within_s=_WELCOME_S)
        following = Following(
            connection,
            receiver,
            sender,
            hello,
            reign,
            self._memory,
            self._disks,
            self._ports,
            self._datagrams,
            self._hot,
            Callbacks(self._on_paired, self._on_handed_over, self._on_lost),
        )
        self._following = following
        following.start()

    def _refusal(self, hello: Hello, reign: Reign, connection: Link) -> Welcome | None:
        own = Reign(self._config.cluster, self._config.workload, 0, 0)
        reason = ""
        if reign.scope != own.scope or hello.protocol != handshake.PROTOCOL:
            reason = "it is another machine or another version"
        elif connection.peer_name and connection.peer_name != hello.host:
            reason = "its certificate is another host's"
        elif self._took_over is not None or self._phase in ("adopting", "failed"):
            reason = f"this standby is {self._phase}"
        elif reign.age < self._newest or (self._following is not None and reign.age == self._newest):
            generation, pairing = self._newest
            stale = f"{generation}/{pairing} was here"
            return Welcome("stale", self._config.host, stale)
        elif (hello.ram_bytes, len(hello.ports)) != (self._config.ram_bytes, len(self._config.nics)):
            reason = "its memory or its network cards differ"
        elif [(disk.name, disk.size_bytes) for disk in hello.disks] != [
            (disk.name, disk.size_bytes) for disk in self._config.disks
        ]:
            reason = "its disks differ"
        return Welcome("unfit", self._config.host, reason) if reason else None

    def _on_paired(self, epoch: int) -> None:
        self._phase = "following"
        self._control.tell(Paired(epoch, *self._newest))

    def _on_handed_over(self, epoch: int) -> None:
        self._control.tell(HandedOver(epoch, *self._newest))

    def _on_lost(self, reason: str, silent_s: float, epoch: int) -> None:
        self._reason = reason
        self._phase = "peer-lost" if epoch else "listening"
        self._control.tell(PeerLost(reason, silent_s * 1000, epoch, *self._newest))

    def _end(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._took_over is None:
            if self._following is not None:
                self._following.end()
            self._disks.settle()
            self._qmp.close()
        else:
            # The guest's own flushes do this too; nobody has to wait for it.
            threading.Thread(target=self._disks.sync_and_close, name="sync", daemon=True).start()
        self._datagrams.close()


def _waiting_qemu(path: str) -> QmpLine:
    deadline = boot_s() + _QEMU_STARTS_S
    while True:
        try:
            qmp = QmpLine(path)
            break
        except Failed:
            if boot_s() > deadline:
                raise
            time.sleep(0.05)
    device_state.ignore_shared(qmp)
    return qmp


def _listen(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    """A listening TCP socket, and a UDP socket of the same number."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for _ in range(20):
        listener = socket.create_server((address, port), family=family, backlog=4)
        datagrams = socket.socket(family, socket.SOCK_DGRAM)
        try:
            datagrams.bind((address, listener.getsockname()[1]))
            return listener, datagrams
        except OSError:
            listener.close()
            datagrams.close()
    raise LinkBroken("No port is free for a primary to come to.")


def _empty(memory: Memory) -> None:
    """Make all of a guest's memory file zeros, by giving its pages back."""
    with mmap.mmap(memory.fd, memory.size_bytes) as mapped:
        mapped.madvise(mmap.MADV_REMOVE)


def _keep_prefix(config: CommConfig, prefix: bytes) -> None:
    path = Path(config.state_dir) / f"device-prefix.{config.qemu_pid}"
    beside = path.with_suffix(".new")
    beside.write_bytes(prefix)
    os.replace(beside, path)
