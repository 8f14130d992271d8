"""Real modules under real runners: started, ready, sick, crashed, hung, limited, stopped, adopted."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.workload import Check, CheckKind, Limits, Module, Readiness, Workload
from outlive.runtime import cgroup
from outlive.runtime.base import Whereabouts
from outlive.runtime.logs import last_lines, log_path
from outlive.runtime.service import Premises, Service

WITHIN_S = 60.0
RUNNING, FAILED, RESTORING = ModuleStatus.RUNNING, ModuleStatus.FAILED, ModuleStatus.RESTORING


@dataclass
class Place:
    """A host's ground for services, and what was told of their modules."""

    folder: Path
    tree: cgroup.Tree
    told: list[tuple[str, ModuleStatus, str]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, module: str, status: ModuleStatus, reason: str) -> None:
        self.told.append((module, status, reason))
        self.news.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not holds():
                await self.news.wait()
                self.news.clear()

    async def until_told(self, count: int) -> tuple[str, ModuleStatus, str]:
        await self.until(lambda: len(self.told) >= count)
        return self.told[-1]

    @property
    def premises(self) -> Premises:
        return Premises(self.tree, self.folder / "states", self.folder / "logs")

    def log(self, module: str) -> list[str]:
        return [line.text for line in last_lines(log_path(self.folder / "logs", "web", module), module, 100)]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    mounts = cgroup.find_or_mount()
    assert mounts.unified is not None
    tree = cgroup.Tree(mounts.unified / f"outlive-test-{os.getpid()}-service", mounts)
    place = Place(tmp_path, tree)
    try:
        yield place
    finally:
        for workload in ("web",):
            cgroup.kill(tree.workload(workload))
            await cgroup.wait_empty(tree.workload(workload), WITHIN_S)
            await tree.remove(workload, WITHIN_S)
        if tree.root.is_dir():
            tree.root.rmdir()


@asynccontextmanager
async def service(place: Place, *modules: Module) -> AsyncIterator[Service]:
    """A service of these modules on fresh cgroups; whatever still runs at the end is left to the fixture."""
    place.tree.make("web", [module.name for module in modules])
    async with asyncio.TaskGroup() as tasks:
        where = Whereabouts("a", "web", 7, place.folder, ("10.0.0.9",))
        one = Service(Workload("web", modules), where, place.premises, place.tell, tasks)
        try:
            yield one
        finally:
            await one.stop()


def shell(script: str, name: str = "server", **changes: object) -> Module:
    return Module(name, ("/bin/sh", "-c", script), **changes)  # type: ignore[arg-type]


def pids(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "cgroup.procs").read_text().split()]


async def test_a_module_without_checks_runs_once_it_has_lived_a_moment(place: Place) -> None:
    async with service(place, shell("exec sleep 60")) as one:
        await one.start("server")
        assert await place.until_told(1) == ("server", RUNNING, "")
        assert len(pids(place.tree.module("web", "server"))) == 1
    assert not cgroup.populated(place.tree.workload("web"))


async def test_what_a_module_knows_of_where_it_runs(place: Place) -> None:
    script = 'echo "$OUTLIVE_WORKLOAD $OUTLIVE_GENERATION $OUTLIVE_HOST $OUTLIVE_ADDRESS $OWN $1 $(pwd)"; exec sleep 60'
    module = Module(
        "server", ("/bin/sh", "-c", script, "sh", "{address}:{{data}}"), environment={"OWN": "{generation}!"}
    )
    async with service(place, module) as one:
        await one.start("server")
        await place.until_told(1)
        async with asyncio.timeout(WITHIN_S):
            while not place.log("server"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    assert place.log("server") == [f"web 7 a 10.0.0.9 7! 10.0.0.9:{{data}} {place.folder}"]


async def test_a_program_that_is_not_there_is_told_and_nothing_is_left(place: Place) -> None:
    async with service(place, Module("server", ("/no/such/program",))) as one:
        await one.start("server")
        module, status, reason = await place.until_told(1)
    assert (module, status) == ("server", FAILED)
    assert "/no/such/program" in reason


async def test_a_module_that_ends_is_failed_with_how_it_ended(place: Place) -> None:
    async with service(place, shell("sleep 0.5; exit 3")) as one:
        await one.start("server")
        await place.until_told(2)
    assert place.told == [("server", RUNNING, ""), ("server", FAILED, "it ended with code 3")]


async def test_a_module_that_crashes_at_once_never_counts_as_running(place: Place) -> None:
    async with service(place, shell("kill -SEGV $$")) as one:
        await one.start("server")
        await place.until_told(1)
    assert place.told == [("server", FAILED, "it was ended by SIGSEGV")]


async def test_children_of_a_module_that_ended_are_gone_before_it_is_told(place: Place) -> None:
    async with service(place, shell("sleep 600 & setsid sleep 601 & sleep 0.3")) as one:
        await one.start("server")
        await place.until(lambda: bool(place.told) and place.told[-1][1] is FAILED)
        assert pids(place.tree.module("web", "server")) == []


async def test_readiness_waits_for_the_line(place: Place) -> None:
    module = shell("sleep 0.4; echo now listening on 80; exec sleep 60", readiness=Readiness("listening on [0-9]+", 20))
    async with service(place, module) as one:
        await one.start("server")
        assert await place.until_told(1) == ("server", RUNNING, "")
        assert place.log("server") == ["now listening on 80"]


async def test_a_line_of_the_run_before_does_not_count_as_readiness(place: Place) -> None:
    script = f"cd {place.folder}; if [ -e again ]; then :; else touch again; echo listening; fi; exec sleep 60"
    async with service(place, shell(script, readiness=Readiness("listening", 0.6))) as one:
        await one.start("server")
        await place.until_told(1)
        await one.start("server")
        _, status, reason = await place.until_told(2)
    assert (status, reason) == (FAILED, "it wrote no line that matches 'listening' within 0.6 s")


async def test_a_module_that_hangs_is_killed_once_its_check_has_failed_often_enough(place: Place) -> None:
    check = Check(CheckKind.COMMAND, ("test", "!", "-e", "{data}/sick"), interval_s=0.05, timeout_s=60, failures=2)
    async with service(place, shell("exec sleep 60", checks=(check,))) as one:
        await one.start("server")
        assert await place.until_told(1) == ("server", RUNNING, "")
        (place.folder / "sick").touch()
        _, status, reason = await place.until_told(2)
        assert pids(place.tree.module("web", "server")) == []
    assert status is FAILED
    assert "failed 2 times in a row: exit code 1" in reason


async def test_checks_of_every_kind_must_succeed_before_a_module_runs(place: Place) -> None:
    program = (
        "import http.server, sys; s = http.server.ThreadingHTTPServer(('127.0.0.1', 0),"
        " http.server.SimpleHTTPRequestHandler); open('port', 'w').write(str(s.server_port)); s.serve_forever()"
    )
    # The port is known only once it runs; the command's first success is what the others need.
    async with service(place, Module("server", (sys.executable, "-c", program))) as one:
        await one.start("server")
        async with asyncio.timeout(WITHIN_S):
            while not (place.folder / "port").exists() or not (place.folder / "port").read_text():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        port = int((place.folder / "port").read_text())
    place.told.clear()
    checks = (
        Check(CheckKind.TCP, port=port, timeout_s=60, grace_s=WITHIN_S),
        Check(CheckKind.HTTP, port=port, path="/port", timeout_s=60, grace_s=WITHIN_S),
        Check(CheckKind.COMMAND, ("test", "-s", "port"), timeout_s=60, grace_s=WITHIN_S),
    )
    again = program.replace("0)", f"{port})")
    async with service(place, Module("server", (sys.executable, "-c", again), checks=checks)) as one:
        await one.start("server")
        assert await place.until_told(1) == ("server", RUNNING, "")


async def test_starting_again_leaves_nothing_of_the_run_before(place: Place) -> None:
    async with service(place, shell("trap '' TERM; sleep 600 & exec sleep 601")) as one:
        await one.start("server")
        await place.until_told(1)
        first = set(pids(place.tree.module("web", "server")))
        await one.start("server")
        await place.until_told(2)
        assert not first & set(pids(place.tree.module("web", "server")))
    assert [status for _, status, _ in place.told] == [RUNNING, RUNNING]


async def test_modules_stop_in_reverse_order_and_are_asked_with_their_signal(place: Place) -> None:
    ask = "trap 'echo {name} >> {folder}/stopped; exit 0' {signal}; touch {folder}/{name}; while :; do sleep 0.05; done"

    def module(name: str, number: str, after: tuple[str, ...]) -> Module:
        script = ask.format(name=name, folder=place.folder, signal=number)
        return shell(script, name, after=after, stop_signal=number, stop_grace_s=20)

    async with service(place, module("db", "INT", ()), module("web", "USR1", ("db",))) as one:
        for name in ("db", "web"):
            await one.start(name)
        await place.until_told(2)
        async with asyncio.timeout(WITHIN_S):
            while not all((place.folder / name).exists() for name in ("db", "web")):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    assert (place.folder / "stopped").read_text().split() == ["web", "db"]
    assert FAILED not in [status for _, status, _ in place.told]


async def test_a_module_that_ignores_its_signal_is_killed_after_its_grace(place: Place) -> None:
    async with service(place, shell("trap '' TERM; while :; do sleep 0.05; done", stop_grace_s=0.3)) as one:
        await one.start("server")
        await place.until_told(1)
    assert not cgroup.populated(place.tree.workload("web"))


async def test_memory_beyond_the_limit_is_not_to_be_had(place: Place) -> None:
    program = "x = bytearray(400 << 20); print(len(x))"
    limits = Limits(memory_mib=64, processes=20, open_files=64)
    async with service(place, Module("server", (sys.executable, "-c", program), limits=limits)) as one:
        await one.start("server")
        await place.until(lambda: bool(place.told) and place.told[-1][1] is FAILED)
    assert "SIGKILL" in place.told[-1][2]


async def test_open_files_and_processes_are_limited(place: Place) -> None:
    script = "ulimit -n; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 60 & done; wait"
    async with service(place, shell(script, limits=Limits(open_files=77, processes=6))) as one:
        await one.start("server")
        await place.until_told(1)
        async with asyncio.timeout(WITHIN_S):
            while not any("ork" in line for line in place.log("server")):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    assert place.log("server")[0] == "77"


async def test_a_module_runs_as_its_user_and_an_unknown_one_is_told(place: Place) -> None:
    modules = (
        shell("id -un; exec sleep 60", user="nobody", working_folder="/"),
        shell("", "other", user="nobody-at-all"),
    )
    async with service(place, *modules) as one:
        await one.start("server")
        await place.until_told(1)
        await one.start("other")
        assert await place.until_told(2) == (
            "other", FAILED, "This host has no user nobody-at-all.",
        )  # fmt: skip
        assert place.log("server") == ["nobody"]


async def test_what_runs_is_adopted_and_what_ended_meanwhile_is_told(place: Place) -> None:
    modules = (shell("exec sleep 60", "one"), shell("exec sleep 60", "two"), shell("exec sleep 60", "never"))
    place.tree.make("web", [module.name for module in modules])
    where = Whereabouts("a", "web", 7, place.folder)
    async with asyncio.TaskGroup() as tasks:
        first = Service(Workload("web", modules), where, place.premises, place.tell, tasks)
        await first.start("one")
        await first.start("two")
        await place.until_told(2)
        for life in first._lives.values():
            assert life.watch is not None
            life.watch.cancel()
        first.leave()
    before = pids(place.tree.module("web", "one"))
    os.kill(pids(place.tree.module("web", "two"))[0], signal.SIGKILL)
    await cgroup.wait_empty(place.tree.module("web", "two"), WITHIN_S)
    place.told.clear()
    async with service(place, *modules) as second:
        assert await second.adopt() == {"one": RUNNING, "two": FAILED}
        second.watch_adopted()
        assert await place.until_told(1) == ("two", FAILED, "it was ended by SIGKILL")
        assert pids(place.tree.module("web", "one")) == before
        os.kill(before[0], signal.SIGTERM)
        assert await place.until_told(2) == ("one", FAILED, "it was ended by SIGTERM")
