"""Two QEMUs with their communication managers, in two network namespaces beside one for clients: a hot pair to harm.

Everything is started by the scene and ended by it, by pid. A bridge of the clients joins both hosts' bridges;
the managers talk over a link of their own, so that the two can be cut apart. The namespaces' names carry this process's
pid and a number, so that two do not meet.
"""

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from outlive.lab.guests.clients import Server
from outlive.lab.guests.tiny import tiny
from outlive.replication.comm_config import CommConfig, Held, HotValues, ReplicatedDisk, write_config
from outlive.replication.control import Adopt, Adopted, Command, Event, Manager, Pair, Status, command_line
from outlive.replication.library import pagewatch_path

from .authority import Authority

PATIENCE_S = 50.0
NOBODY = 65534
GUEST = ("10.77.0.10", "10.77.1.10")
LINK = {"p": "10.88.0.1", "s": "10.88.0.2"}
MAC = ("52:54:00:77:00:10", "52:54:00:77:01:10")
Told = TypeVar("Told")

_numbers = itertools.count()


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)


@dataclass
class Shape:
    """What the pair is made of. machine: pc or q35."""

    memory_mib: int = 128
    cpus: int = 1
    machine: str = "pc"
    nics: int = 1
    disk_mib: tuple[int, ...] = ()
    hot: HotValues = field(default_factory=lambda: HotValues(silence_ms=400.0))
    watched: bool = True
    tls: bool = False


class Side:
    """One host: its QEMU, its manager, and what the manager told."""

    def __init__(self, name: str, scene: "PairScene") -> None:
        self.name = name
        self.namespace = f"{scene.tag}-{name}"
        self.folder = scene.folder / name
        self.folder.mkdir()
        os.chown(self.folder, NOBODY, NOBODY)
        self.ram = scene.memory / f"{name}.ram"
        self.qemu: subprocess.Popen[bytes] | None = None
        self.comm: subprocess.Popen[bytes] | None = None
        self.events: list[tuple[float, Event]] = []
        self._scene = scene
        self._manager: Manager | None = None

    def disk(self, index: int) -> Path:
        return self.folder / f"d{index}.raw"

    def start_qemu(self, *, incoming: bool) -> None:
        shape = self._scene.shape
        guest = tiny()
        watch = self.folder / "pagewatch"
        watch.unlink(missing_ok=True)
        words = ["ip", "netns", "exec", self.namespace]
        words += ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        if shape.watched:
            # By `env`, behind the others: the library takes its variables out of whatever it is loaded into.
            words += ["env", f"LD_PRELOAD={pagewatch_path()}", f"OUTLIVE_PAGEWATCH_TO={watch}"]
            words += [f"OUTLIVE_PAGEWATCH_BYTES={shape.memory_mib << 20}"]
        words += ["qemu-system-x86_64", "-accel", "tcg", "-nodefaults", "-device", "VGA"]
        words += ["-display", "none", "-M", f"{shape.machine},memory-backend=ram0", "-m", str(shape.memory_mib)]
        words += ["-smp", str(shape.cpus), "-kernel", str(guest.kernel), "-initrd", str(guest.initrd)]
        words += ["-append", guest.append_for(*(f"{address}/24" for address in GUEST[: shape.nics]))]
        size = f"size={shape.memory_mib}M"
        words += ["-object", f"memory-backend-file,id=ram0,{size},mem-path={self.ram},share=on"]
        words += ["-serial", f"file:{self.folder}/serial", "-qmp", f"unix:{self.folder}/qmp,server=on,wait=off"]
        for index in range(shape.nics):
            ends = f"local.type=unix,local.path={self.folder}/n{index}.vm"
            ends += f",remote.type=unix,remote.path={self.folder}/n{index}.cm"
            words += ["-netdev", f"dgram,id=h{index},{ends}"]
            words += ["-device", f"virtio-net-pci,id=e{index},netdev=h{index},mac={MAC[index]}"]
        for index, size_mib in enumerate(shape.disk_mib):
            if not self.disk(index).exists():
                self.disk(index).touch()
                os.truncate(self.disk(index), size_mib << 20)
                os.chown(self.disk(index), NOBODY, NOBODY)
            words += ["-blockdev", f"driver=raw,node-name=d{index},file.driver=file,file.filename={self.disk(index)}"]
            words += ["-device", f"virtio-blk-pci,id=v{index},drive=d{index}"]
        self.ram.unlink(missing_ok=True)
        self.ram.touch()
        os.truncate(self.ram, shape.memory_mib << 20)
        os.chown(self.ram, NOBODY, NOBODY)
        if incoming:
            words += ["-incoming", "defer"]
        with (self.folder / "qemu.log").open("ab") as log:
            self.qemu = subprocess.Popen(words, stdout=log, stderr=log)
        self._scene.started.append(self.qemu)

    def config(self, role: Any, generation: int, pairing: int) -> CommConfig:
        assert self.qemu is not None
        shape = self._scene.shape
        return CommConfig(
            role=role,
            cluster="test",
            host=self.name,
            workload="vm1",
            generation=generation,
            pairing=pairing,
            state_dir=str(self.folder / "comm"),
            qmp=str(self.folder / "qmp"),
            qemu_pid=self.qemu.pid,
            ram_path=str(self.ram),
            ram_bytes=shape.memory_mib << 20,
            pagewatch=str(self.folder / "pagewatch") if shape.watched else "",
            nics=tuple(
                Held(f"n{index}", f"tap{index}", f"{self.folder}/n{index}.cm", f"{self.folder}/n{index}.vm", MAC[index])
                for index in range(shape.nics)
            ),
            disks=tuple(
                ReplicatedDisk(f"d{index}", f"d{index}", str(self.disk(index)), size << 20)
                for index, size in enumerate(shape.disk_mib)
            ),
            hot=shape.hot,
            listen_address=LINK[self.name],
            tls=self._scene.authority.files(self.name) if shape.tls else None,
        )

    def start_comm(self, role: str, generation: int = 1, pairing: int = 0) -> Status:
        (self.folder / "comm").mkdir(exist_ok=True)
        path = self.folder / "comm.json"
        write_config(path, self.config(role, generation, pairing))
        words = ["ip", "netns", "exec", self.namespace, *command_line(sys.executable, path)]
        with (self.folder / "comm.log").open("ab") as log:
            self.comm = subprocess.Popen(words, stdout=log, stderr=log, cwd="/")
        self._scene.started.append(self.comm)
        if self._manager is not None:
            self._scene.on_loop(self._manager.close())
        self._manager = self._scene.on_loop(Manager.connect(self.folder / "comm" / "comm.sock", within_s=PATIENCE_S))
        self._scene.spawn(self._listen(self._manager))
        return self._manager.first_status

    def send(self, command: Command) -> None:
        assert self._manager is not None
        self._scene.on_loop(self._manager.send(command))

    def wait(self, kind: type[Told], *, after: float = 0.0, within_s: float = PATIENCE_S) -> Told:
        """The first event of that kind that was told after a time (`time.monotonic`)."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            for at, event in list(self.events):
                if at >= after and isinstance(event, kind):
                    return event
            time.sleep(0.005)
        raise AssertionError(f"{self.name} did not tell {kind.__name__}: {self.events[-5:]}\n{self.log()}")

    def told(self, what: str) -> int:
        """How often its manager has logged something."""
        return (self.folder / "comm.log").read_text().count(what)

    def log(self) -> str:
        logs = [self.folder / "comm.log", self.folder / "qemu.log"]
        return "\n".join(path.read_text()[-3000:] for path in logs if path.exists())

    def kill(self, *, qemu: bool = True, comm: bool = True) -> None:
        for process in (self.comm if comm else None, self.qemu if qemu else None):
            if process is not None:
                process.send_signal(signal.SIGKILL)

    def links(self, state: str, *names: str) -> None:
        batch = "".join(f"link set {name} {state}\n" for name in names or ("up0", "rep0"))
        words = ["ip", "-n", self.namespace, "-batch", "-"]
        subprocess.run(words, input=batch.encode(), check=True)

    async def _listen(self, manager: Manager) -> None:
        with contextlib.suppress(Exception):
            while True:
                event = await manager.event(within_s=3600)
                if event is not None:
                    self.events.append((time.monotonic(), event))


class PairScene:
    """Both hosts and the clients' network: p acts, s follows. Leave it with `close`, whatever happened."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.tag = f"ol{os.getpid()}x{next(_numbers)}"
        self.clients = f"{self.tag}-c"
        self.started: list[subprocess.Popen[bytes]] = []
        self.generation, self.pairing = 1, 0
        self.acting: Side | None = None
        self.first_ids = itertools.count(0, 8)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._tasks: list[Any] = []
        self.folder = Path(tempfile.mkdtemp(prefix="olp", dir="/tmp"))
        self.folder.chmod(0o711)
        self.authority = Authority(self.folder / "authority")
        self.memory = Path(tempfile.mkdtemp(prefix="olp", dir="/dev/shm"))
        self.memory.chmod(0o711)
        try:
            self._networks()
            self.p, self.s = Side("p", self), Side("s", self)
        except BaseException:
            self.close()
            raise

    def boot(self) -> None:
        """Start both machines and managers; returns when the guest's server answers."""
        self.p.start_qemu(incoming=False)
        self.s.start_qemu(incoming=True)
        self.p.start_comm("primary")
        self.s.start_comm("standby")
        with self.server():
            pass

    def server(self, index: int = 0, within_s: float = PATIENCE_S) -> Server:
        return Server.reach(GUEST[index], within_s, namespace=self.clients)

    def pair(self, primary: Side, standby: Side) -> None:
        """Tell the primary to pair, and wait until it is."""
        from outlive.replication.control import Paired

        began = time.monotonic()
        port = self.port_of(standby)
        self.pairing += 1
        primary.send(Pair(standby.name, LINK[standby.name], port, self.generation, self.pairing))
        primary.wait(Paired, after=began)
        assert ("tracking.by_comparing" in primary.log()) is not self.shape.watched

    def adopt(self, side: Side, after: float = 0.0) -> Adopted:
        """Have a standby go on as the primary of the next generation."""
        self.generation += 1
        self.acting = side
        side.send(Adopt(self.generation))
        return side.wait(Adopted, after=after)

    def follow_anew(self, survivor: Side) -> None:
        """Who took over acts; the other begins anew as its standby, and follows."""
        self.p, self.s = survivor, self.p if survivor is self.s else self.s
        self.s.kill()
        for process in (self.s.qemu, self.s.comm):
            assert process is not None
            process.wait(PATIENCE_S)
        self.s.links("up")
        for side in (self.p, self.s):
            side.events.clear()
        self.acting = None
        self.s.start_qemu(incoming=True)
        self.s.start_comm("standby", self.generation, self.pairing)
        self.pair(self.p, self.s)

    def port_of(self, side: Side) -> int:
        assert side._manager is not None
        if side._manager.first_status.port:
            return side._manager.first_status.port
        from outlive.replication.control import Listening

        return side.wait(Listening).port

    def on_loop(self, work: Coroutine[Any, Any, Told]) -> Told:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S + 5)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.run_coroutine_threadsafe(work, self._loop))

    def close(self) -> None:
        for process in reversed(self.started):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
        for task in self._tasks:
            task.cancel()
        for side in (getattr(self, "p", None), getattr(self, "s", None)):
            if side is not None and side._manager is not None:
                with contextlib.suppress(Exception):
                    self.on_loop(side._manager.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()
        for name in ("c", "p", "s"):
            subprocess.run(["ip", "netns", "del", f"{self.tag}-{name}"], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.memory, ignore_errors=True)

    def _networks(self) -> None:
        for name in ("c", "p", "s"):
            run("ip", "netns", "add", f"{self.tag}-{name}")
            run("ip", "-n", f"{self.tag}-{name}", "link", "set", "lo", "up")
        for index in range(self.shape.nics):
            run("ip", "-n", self.clients, "link", "add", f"br{index}", "type", "bridge", "forward_delay", "0")
            run("ip", "-n", self.clients, "link", "set", f"br{index}", "up")
            run("ip", "-n", self.clients, "addr", "add", f"10.77.{index}.1/24", "dev", f"br{index}")
            for host in ("p", "s"):
                space, veth = f"{self.tag}-{host}", f"v{host}{index}"
                run(
                    *("ip", "link", "add", veth, "netns", self.clients),
                    *("type", "veth", "peer", "name", f"up{index}", "netns", space),
                )
                run("ip", "-n", self.clients, "link", "set", veth, "master", f"br{index}", "up")
                run("ip", "-n", space, "link", "add", f"br{index}", "type", "bridge", "forward_delay", "0")
                run("ip", "-n", space, "link", "set", f"br{index}", "up")
                run("ip", "-n", space, "link", "set", f"up{index}", "master", f"br{index}", "up")
                run("ip", "-n", space, "tuntap", "add", f"tap{index}", "mode", "tap")
                run("ip", "-n", space, "link", "set", f"tap{index}", "master", f"br{index}", "up")
        run(
            *("ip", "link", "add", "rep0", "netns", f"{self.tag}-p"),
            *("type", "veth", "peer", "name", "rep0", "netns", f"{self.tag}-s"),
        )
        for host in ("p", "s"):
            run("ip", "-n", f"{self.tag}-{host}", "addr", "add", f"{LINK[host]}/24", "dev", "rep0")
            run("ip", "-n", f"{self.tag}-{host}", "link", "set", "rep0", "up")


@contextlib.contextmanager
def hot_pair(shape: Shape | None = None, *, paired: bool = True) -> Iterator[PairScene]:
    """A booted pair; paired: already following."""
    scene = PairScene(shape or Shape())
    try:
        scene.boot()
        if paired:
            scene.pair(scene.p, scene.s)
        yield scene
    except BaseException:
        for side in (scene.p, scene.s):
            print(f"--- {side.name}\n{side.log()}\n{side.events[-5:]}")
        raise
    finally:
        scene.close()


class SharedPair:
    """A pair for tests that follow each other: whoever took over in one is the primary of the next."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._scene: PairScene | None = None
        self._failed = 0

    def begin(self, shape: Shape, failed: int) -> PairScene:
        """A pair that follows. failed: how many tests have failed until now; after one that did it is made anew."""
        if failed != self._failed:
            self.end()
        self._failed = failed
        if self._scene is None:
            self._scene = self._stack.enter_context(hot_pair(shape))
        elif self._scene.acting is not None:
            self._scene.follow_anew(self._scene.acting)
        return self._scene

    def end(self) -> None:
        """End the pair."""
        self._scene = None
        self._stack.close()
