"""Hosts for the tests of this room: network namespaces joined by a bridge, with a driver in each.

The namespaces have no names: each lives as long as a process that waits for its standard input to end. So the
kernel takes everything away when the tests end, in whatever way.
"""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "src"
PATIENCE_S = 60.0


class DriverError(Exception):
    """What the driver's call was refused with: the id and the text of an OutliveError."""

    def __init__(self, id: str, sentence: str) -> None:
        super().__init__(sentence)
        self.id = id
        self.sentence = sentence


class Namespace:
    """A network namespace, which is there until `close`."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        self._holder.stdout.readline()
        self.pid = self._holder.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _end(self._holder)

    def inside(self, *command: str) -> list[str]:
        """The command, to be run in this namespace."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *command]

    def run(self, *command: str) -> str:
        return subprocess.run(
            self.inside(*command), check=True, capture_output=True, text=True, timeout=PATIENCE_S
        ).stdout

    def ip(self, text: str) -> Any:
        """Run `ip -json TEXT`; what it tells, decoded."""
        told = self.run("ip", "-json", *text.split())
        return json.loads(told) if told.strip() else None

    def sysctl(self, name: str) -> str:
        return self.run("cat", f"/proc/sys/{name}").strip()

    def addresses(self, interface: str = "eth0") -> set[str]:
        """The addresses of an interface without its link-local one, as IP/PREFIX."""
        [link] = self.ip(f"address show dev {interface}")
        return {
            f"{info['local']}/{info['prefixlen']}"
            for info in link["addr_info"]
            if info["scope"] == "global" and "local" in info
        }

    def mac(self, interface: str = "eth0") -> str:
        [link] = self.ip(f"link show dev {interface}")
        return str(link["address"])

    def mac_of_neighbour(self, ip: str) -> str | None:
        """Where this host's neighbour table says that `ip` is."""
        found = self.ip(f"neighbour show to {ip}") or []
        return next((entry["lladdr"] for entry in found if "lladdr" in entry), None)


class Driver:
    """A driver process in a namespace."""

    def __init__(self, namespace: Namespace, wrapper: tuple[str, ...] = (), **options: object) -> None:
        self._ids = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        command = [*wrapper, sys.executable, str(HERE / "driver.py"), json.dumps(options)]
        self.process = subprocess.Popen(
            namespace.inside(*command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(SOURCES)},
        )
        assert self._wait(0) == "ready"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _end(self.process)

    def begin(self, call: str, *arguments: object) -> int:
        """Have it done without waiting; `finish` waits."""
        assert self.process.stdin is not None
        number = next(self._ids)
        self.process.stdin.write(json.dumps({"id": number, "call": call, "arguments": arguments}) + "\n")
        self.process.stdin.flush()
        return number

    def finish(self, number: int) -> Any:
        return self._wait(number)

    def do(self, call: str, *arguments: object) -> Any:
        """Have it done; the result. Raises DriverError."""
        return self._wait(self.begin(call, *arguments))

    def _wait(self, number: int) -> Any:
        assert self.process.stdout is not None
        while number not in self._answers:
            line = self.process.stdout.readline()
            assert line, f"the driver ended: {self.process.wait()}"
            answer = json.loads(line)
            self._answers[answer["id"]] = answer
        answer = self._answers.pop(number)
        if "error" in answer:
            raise DriverError(answer["error"], answer["sentence"])
        return answer["result"]


class Host(Namespace):
    """A namespace with `eth0` on the LAN and a driver."""

    def __init__(self, resources: ExitStack) -> None:
        super().__init__()
        resources.enter_context(self)
        self._resources = resources
        self.port = f"port{self.pid}"

    def start(self) -> None:
        self.driver = self.another_driver()

    def another_driver(self, wrapper: tuple[str, ...] = (), **options: object) -> Driver:
        return self._resources.enter_context(Driver(self, wrapper, **options))

    def do(self, call: str, *arguments: object) -> Any:
        return self.driver.do(call, *arguments)


class Lan:
    """A bridge in a namespace of its own, and hosts on it at 10.77.0.NUMBER and fd77::NUMBER."""

    def __init__(self, resources: ExitStack) -> None:
        self._resources = resources
        self._switch = resources.enter_context(Namespace())
        self._switch.ip("link add lan up type bridge")
        self._numbers = itertools.count(1)

    def host(self, *, addressed: bool = True) -> Host:
        host = Host(self._resources)
        self._switch.ip(f"link add {host.port} up master lan type veth peer name eth0 netns {host.pid}")
        host.ip("link set lo up")
        host.ip("link set eth0 up")
        if addressed:
            number = next(self._numbers)
            host.ip(f"address add 10.77.0.{number}/24 dev eth0")
            host.ip(f"address add fd77::{number}/64 dev eth0 nodad")
        host.start()
        return host

    def plug_into(self, namespace: Namespace, name: str) -> None:
        """Give another namespace an interface in the LAN."""
        self._switch.ip(f"link add plug{namespace.pid} up master lan type veth peer name {name} netns {namespace.pid}")
        namespace.ip(f"link set {name} up")

    def reflect(self, host: Host) -> None:
        """Send back to the host what it sends, as a badly made network does."""
        self._switch.ip(f"link set {host.port} type bridge_slave hairpin on")

    def unplug(self, host: Host) -> None:
        self._switch.ip(f"link set {host.port} down")

    def plug_in(self, host: Host) -> None:
        self._switch.ip(f"link set {host.port} up")


def wait_until(holds: Callable[[], object], what: str) -> float:
    """Wait until it holds; how many seconds that took. Fails after a long time only."""
    begun_s = time.monotonic()
    while not holds():
        assert time.monotonic() - begun_s < PATIENCE_S, f"it never came true: {what}"
        time.sleep(0.02)
    return time.monotonic() - begun_s


def _end(process: "subprocess.Popen[Any]") -> None:
    """End a process that may be stopped, and collect it."""
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    process.wait(PATIENCE_S)


@pytest.fixture(scope="session")
def lan() -> Iterator[Lan]:
    with ExitStack() as resources:
        yield Lan(resources)


@pytest.fixture(scope="session")
def alpha(lan: Lan) -> Host:
    return lan.host()


@pytest.fixture(scope="session")
def beta(lan: Lan) -> Host:
    return lan.host()


@pytest.fixture(scope="session")
def client(lan: Lan) -> Host:
    return lan.host()


@pytest.fixture
def waiting() -> Callable[[Callable[[], object], str], float]:
    return wait_until


_numbers = itertools.count(32)


@pytest.fixture(params=["ipv4", "ipv6"])
def vip(request: pytest.FixtureRequest) -> str:
    """An address of the LAN that no other test uses, in both families."""
    number = next(_numbers)
    return f"10.77.0.{number}/24%eth0" if request.param == "ipv4" else f"fd77::{number:x}/64%eth0"
