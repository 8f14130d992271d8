"""A real cluster of one host for tests of the API and the command line: `outlive up` in a namespace of its own.

Its agent, guard and workloads are real processes. Everything of it is gone at the end, whatever the tests did.
"""

import asyncio
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from outlive.agent import founding, presence
from outlive.api.problems import NotFound
from outlive.client import Client
from outlive.client.connection import Answered
from outlive.cluster import records as rec
from outlive.cluster.timing import Timing
from outlive.cluster.transaction import Put, Transaction
from outlive.config.agent_file import AgentConfig, read_agent
from outlive.native import outlive_command
from outlive.store.opening import open_store

WITHIN_S = 60.0
PATIENT = Timing(claim_ttl_s=40)


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The object on the last line."""
        return json.loads(self.out.splitlines()[-1])


@dataclass(frozen=True, slots=True)
class OneHost:
    """A host that is up. namespace: its network namespace; its address there is 127.0.0.1, and eth0 has 10.88.0.1."""

    folder: Path
    namespace: str

    @property
    def socket(self) -> str:
        return str(self.folder / "run" / presence.API_SOCKET)

    @property
    def client(self) -> Client:
        return Client(self.socket)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "OUTLIVE_SOCKET": self.socket, "NO_COLOR": "1"}

    def command(self, *words: str) -> list[str]:
        """The words that run our command line where the host is."""
        return ["nsenter", f"--net=/run/netns/{self.namespace}", "--", *outlive_command(*words)]

    def run(self, *words: str, input: str | None = None) -> Ran:
        """Run a command to its end."""
        done = subprocess.run(
            self.command(*words), input=input, stdin=None if input is not None else subprocess.DEVNULL,
            capture_output=True, text=True, timeout=WITHIN_S, env=self.environment, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Start a command that is not to end by itself; the caller ends it."""
        return subprocess.Popen(
            self.command(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=self.environment,
        )  # fmt: skip

    def outlook(self, workload: str) -> dict[str, Any]:
        """How a workload stands."""
        found: dict[str, Any] = self.client.get(f"/v1/workloads/{workload}")["outlook"]
        return found

    def names(self) -> set[str]:
        """The workloads that there are."""
        return {each["name"] for each in self.client.get("/v1/workloads")["workloads"]}

    def forget(self, *names: str) -> None:
        """Remove workloads, those that are there, and those on their way out."""
        for name in self.names() & set(names):
            forget(self.client, name)
        until(lambda: not self.names() & set(names), f"{names} are forgotten")

    def apply(self, name: str, *command: str) -> None:
        """Have a workload of one module run, and wait until it does."""
        words = command or ("/usr/bin/sleep", "3600")
        self.client.put(f"/v1/workloads/{name}", workload(name, *words).encode())
        until(lambda: self.outlook(name)["state"] == "running", f"{name} runs")
        until(lambda: self._is_told(name), f"that {name} runs is recorded")

    def _is_told(self, name: str) -> bool:
        """Whether all that happened until it ran is recorded: events reach the store after what they tell of."""
        running, generation = "workload.running", self.outlook(name)["generation"]
        events = self.client.get(f"/v1/events?workload={name}&limit=5000")["events"]
        return any((event["kind"], event["generation"]) == (running, generation) for event in events)


def forget(client: Client, workload: str) -> None:
    """Remove a workload; one that has gone since it was listed is no failure."""
    try:
        client.delete(f"/v1/workloads/{workload}")
    except Answered as error:
        if error.id != NotFound.id:
            raise


def workload(name: str, *command: str, more: str = "") -> str:
    """A workload file of one module."""
    return f'name = "{name}"\n{more}\n[module.main]\ncommand = {json.dumps(list(command))}\nstop_grace_s = 1.0\n'


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait until something holds, for as long as a loaded machine may need."""
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline, f"after {WITHIN_S:g} s it does not hold that {what}"
        time.sleep(0.02)


@contextmanager
def namespace(name: str) -> Iterator[str]:
    """A network namespace with a loopback and an eth0."""
    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", "far")
        ip("-n", name, "addr", "add", "10.88.0.1/24", "dev", "eth0")
        for end in ("eth0", "far"):
            ip("-n", name, "link", "set", end, "up")
        yield name
    finally:
        ip("netns", "del", name)


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=WITHIN_S).stdout


@contextmanager
def up(folder: Path, name: str, timing: Timing | None = None) -> Iterator[OneHost]:
    """A host that is up for as long as the block lasts. timing: other than `up` chooses."""
    with namespace(name):
        host = OneHost(folder, name)
        words = ("up", "--folder", str(folder), "--name", "one", "--json")
        try:
            if timing is not None:
                assert host.run(*words, "--no-start").code == 0
                asyncio.run(found_with(read_agent(folder / "agent.toml"), timing))
            begun = host.run(*words)
            assert begun.code == 0, begun
            yield host
        finally:
            clear_away(host)


async def found_with(config: AgentConfig, timing: Timing) -> None:
    """Write the cluster's record with other intervals than `up` did."""
    store = await open_store(config, timeout_s=founding.STORE_S)
    try:
        record = rec.encode(rec.ClusterRecord(config.cluster.id, timing=timing))
        await store.transact(Transaction((), (Put(rec.CLUSTER, record),)), timeout_s=founding.STORE_S)
    finally:
        await store.close()


def clear_away(host: OneHost) -> None:
    """End the host in order, and then whatever is left of it."""
    if not (host.folder / "agent.toml").exists():
        return
    host.run("down", "--folder", str(host.folder), "--yes")
    root = read_agent(host.folder / "agent.toml").cgroup_root
    assert root is not None
    for group in (root, root.parent):
        if (group / "cgroup.kill").exists():
            (group / "cgroup.kill").write_text("1")
    for folder, _, _ in os.walk(root.parent, topdown=False):
        _removed(Path(folder))
    for path in host.folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _removed(group: Path) -> None:
    def gone() -> bool:
        try:
            group.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    until(gone, f"{group} is removed")


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that workloads of other users can pass through, as pytest's own cannot be."""
    with tempfile.TemporaryDirectory(prefix="ol-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


_numbers = itertools.count()


@contextmanager
def another(timing: Timing | None = None) -> Iterator[OneHost]:
    """A host that is up, in a folder and a namespace of its own."""
    with open_folder() as folder, up(folder, f"ol-t{os.getpid()}-{next(_numbers)}", timing) as host:
        yield host


class SharedHost:
    """The host that the tests of a folder share: it ends with them, since the lab's tests need the processors."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._host: OneHost | None = None
        self._of: Path | None = None

    def begin(self, of: Path) -> OneHost:
        """The host of a folder of tests, which is up."""
        if of != self._of:
            self.end()
        self._of = of
        if self._host is None:
            self._host = self._stack.enter_context(another())
        return self._host

    def end(self) -> None:
        """End it, if it is up."""
        self._host = None
        self._stack.close()


shared_host = SharedHost()


@pytest.fixture(scope="module")
def one_host(request: pytest.FixtureRequest) -> OneHost:
    """The host that tests share. Each test has workloads of names of its own, and removes them."""
    request.config.add_cleanup(shared_host.end)  # for runs that stop in the middle
    return shared_host.begin(request.path.parent)


@pytest.fixture
def other_host() -> Iterator[OneHost]:
    """A host for one test alone, which may end it."""
    with another() as host:
        yield host


@pytest.fixture
def patient_host() -> Iterator[OneHost]:
    """A host for one test whose claims last so long that a new agent is in time, however loaded the machine is."""
    with another(PATIENT) as host:
        yield host


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None]:
    """The host ends with its folder's last test."""
    yield
    if nextitem is None or nextitem.path.parent != item.path.parent:
        shared_host.end()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that has a real host: it needs root, as the lab does."""
    for item in items:
        if {"one_host", "other_host", "patient_host"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.lab)
