"""A real etcd cluster for tests: three processes on loopback, and relays between them that can be cut.

Members are reached by the others through a relay each, which knows by the kernel's tables who called; so any direction
between two can be cut without touching the machine's network. Members are killed, stopped and let go on by their
process ids; data is in one folder, in memory where possible. Everything ends with the block.
"""

import asyncio
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from outlive.config.store_address import Endpoint, EtcdAddress
from outlive.errors import Failed

from ..ports import free_ports
from ..serving import STEPS, Connections

HOST = "127.0.0.1"
NAMES = ("one", "two", "three")
READY_S = 60.0


class Relays:
    """Carries bytes from one member to another, in a thread with a loop of its own, unless that way is cut."""

    def __init__(self, caller: Callable[[int], str]) -> None:
        self._caller = caller
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relays", daemon=True)
        self._thread.start()
        self._cut: set[tuple[str, str]] = set()
        self._open: dict[tuple[str, str], set[asyncio.StreamWriter]] = {}
        self._connections: list[Connections] = []
        self._servers: list[asyncio.Server] = []

    def add(self, name: str, listen: int, target: int) -> None:
        """Begin to carry what comes to the port `listen` for that member to `target`."""

        async def start() -> None:
            connections = Connections(lambda r, w: self._carry(name, r, w, target))
            self._connections.append(connections)
            self._servers.append(await asyncio.start_server(connections.begin, HOST, listen))

        asyncio.run_coroutine_threadsafe(start(), self._loop).result(READY_S)

    def cut(self, ways: set[tuple[str, str]]) -> None:
        """Let nothing pass on these ways, and on no others."""

        async def do() -> None:
            self._cut = set(ways)
            for way in ways:
                for writer in self._open.get(way, set()).copy():
                    writer.transport.abort()

        asyncio.run_coroutine_threadsafe(do(), self._loop).result(READY_S)

    def close(self) -> None:
        """End the thread and all that it carries."""

        async def do() -> None:
            for server in self._servers:
                server.close()
            for connections in self._connections:
                await connections.end()
            # The other ends' transports close in a step of their own.
            for _ in range(STEPS):
                await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(do(), self._loop).result(READY_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(READY_S)
        self._loop.close()

    async def _carry(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int) -> None:
        way = self._caller(writer.get_extra_info("peername")[1]), name
        ends = self._open.setdefault(way, set())
        ends.add(writer)
        try:
            if way in self._cut:
                return
            there, back = await asyncio.open_connection(HOST, target)
            ends.add(back)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_copy(reader, back))
                    group.create_task(_copy(there, writer))
            finally:
                ends.discard(back)
                back.transport.abort()
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            ends.discard(writer)
            writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError


class EtcdCluster:
    """Three members; each may be killed, stopped, cut off from the others, and made whole again."""

    def __init__(self, folder: Path, ports: Sequence[int], *options: str) -> None:
        self.folder = folder
        self._options = options
        self._client_ports = dict(zip(NAMES, ports[:3], strict=True))
        self._peer_ports = dict(zip(NAMES, ports[3:6], strict=True))
        self._relay_ports = dict(zip(NAMES, ports[6:], strict=True))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._relays = Relays(self._caller)
        for name in NAMES:
            self._relays.add(name, self._relay_ports[name], self._peer_ports[name])
        for name in NAMES:
            self.start(name)

    def address(self, prefix: str = "/outlive", members: tuple[str, ...] = NAMES) -> EtcdAddress:
        """The address of a store in it."""
        return EtcdAddress(tuple(Endpoint(HOST, self._client_ports[name]) for name in members), prefix)

    def start(self, name: str) -> None:
        """Start a member that does not run."""
        peers = ",".join(f"{other}=http://{HOST}:{port}" for other, port in self._relay_ports.items())
        own_peer, own_client, relay = (
            f"http://{HOST}:{ports[name]}" for ports in (self._peer_ports, self._client_ports, self._relay_ports)
        )
        log = (self.folder / f"{name}.log").open("ab")
        with log:
            self._processes[name] = subprocess.Popen(
                [
                    "etcd", "--name", name, "--data-dir", str(self.folder / name), "--logger", "zap",
                    "--listen-client-urls", own_client, "--advertise-client-urls", own_client,
                    "--listen-peer-urls", own_peer, "--initial-advertise-peer-urls", relay,
                    "--initial-cluster", peers, "--initial-cluster-token", self.folder.name, *self._options,
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def kill(self, name: str) -> None:
        """As kill -9 does."""
        process = self._processes[name]
        process.kill()
        process.wait(READY_S)

    def pause(self, name: str) -> None:
        """Stop a member where it stands."""
        os.kill(self._processes[name].pid, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let it go on."""
        os.kill(self._processes[name].pid, signal.SIGCONT)

    def cut_off(self, *names: str) -> None:
        """Cut these members off from the rest; clients reach all of them. Without names all is joined again."""
        self._relays.cut({(a, b) for a in NAMES for b in NAMES if (a in names) != (b in names)})

    def mend(self) -> None:
        """Have all members run and hear each other."""
        self.cut_off()
        for name, process in self._processes.items():
            if process.poll() is not None:
                self.start(name)
            else:
                self.resume(name)

    def _caller(self, port: int) -> str:
        """The member whose connection has that port at its end."""
        ends = f"{socket.ntohl(int.from_bytes(socket.inet_aton(HOST))):08X}:{port:04X}"
        rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
        socket_name = next((f"socket:[{row[9]}]" for row in rows if row[1] == ends), "")
        for name, process in list(self._processes.items()):
            with suppress(OSError):
                for each in Path(f"/proc/{process.pid}/fd").iterdir():
                    with suppress(OSError):
                        if os.readlink(each) == socket_name:
                            return name
        return ""

    def leader(self) -> str:
        """The member that leads; waits for one."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            for name in NAMES:
                with suppress(httpx.HTTPError, KeyError):
                    told = httpx.post(
                        f"http://{HOST}:{self._client_ports[name]}/v3/maintenance/status", content=b"{}", timeout=1
                    ).json()
                    if told["leader"] == told["header"]["member_id"]:
                        return name
            time.sleep(0.1)
        raise Failed("etcd has no leader.", cause=(self.folder / "one.log").read_text(errors="replace")[-800:])

    def until_whole(self) -> None:
        """Wait until every member serves."""
        deadline = time.monotonic() + READY_S
        for name in NAMES:
            while True:
                with suppress(httpx.HTTPError):
                    url = f"http://{HOST}:{self._client_ports[name]}/v3/kv/range"
                    if httpx.post(url, content=b'{"key": "YQ=="}', timeout=2).status_code == 200:
                        break
                if time.monotonic() > deadline:
                    log = (self.folder / f"{name}.log").read_text(errors="replace")
                    raise Failed(f"etcd's member {name} does not serve.", cause=log[-800:])
                time.sleep(0.05)

    def end(self) -> None:
        """Kill all members."""
        for process in self._processes.values():
            process.kill()
            process.wait(READY_S)
        self._relays.close()


@contextmanager
def etcd_cluster(*options: str) -> Iterator[EtcdCluster]:
    """A cluster that serves, and is gone after the block."""
    memory = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None, prefix="outlive-etcd-") as folder,
        free_ports(9) as ports,
    ):
        cluster = EtcdCluster(Path(folder), ports, *options)
        try:
            cluster.until_whole()
            yield cluster
        finally:
            cluster.end()
