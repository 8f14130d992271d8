"""What is asked of one agent about a machine elsewhere is answered by the host that knows, over the peers' port.

Two APIs are served as agents serve them; what they stand on is pretended.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from outlive.agent import peers
from outlive.agent.founding import Authority
from outlive.api import checkpoints as checkpoints_api
from outlive.api import relaying
from outlive.api.boards import common_board
from outlive.api.checkpoints import Checkpoints, Damaged, Missing, Unlike
from outlive.api.figures import Figures
from outlive.api.server import PeerPort, serving
from outlive.api.view import ConsoleUse, Looks, View
from outlive.client import Client
from outlive.client.connection import Answered
from outlive.cluster import records as rec
from outlive.cluster.machine import KernelBoot, Machine, MachineType, WarmPolicy
from outlive.cluster.mirror import Entry, Mirror
from outlive.cluster.transaction import KeyValue, Put, Transaction, TransactionResult
from outlive.cluster.workload import Kind, Module, Protection, Workload
from outlive.errors import ClusterUnreachable, Failed, OutliveError

from ..cluster.small_world import host
from ..ports import free_port

PNG = b"\x89PNG\r\n\x1a\n" + bytes(300_000)
WITHIN_S = 60.0


class Console:
    """A console that says what a test has it say."""

    def __init__(self) -> None:
        self.says: asyncio.Queue[bytes] = asyncio.Queue()
        self.typed = b""
        self.closed = asyncio.Event()

    async def read(self) -> bytes:
        return await self.says.get()

    async def type(self, keys: bytes) -> None:
        self.typed += keys

    async def close(self) -> None:
        self.closed.set()


def checkpoint(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "label": "", "generation": 2, "differs": "", "problem": "", **more}


class Local:
    """One host's machines, pretended."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.runs = name == "b"
        self.pressed: list[str] = []
        self.console_of = Console()
        self.datastore: str | None = "shared" if self.runs else None
        self.found: list[dict[str, Any]] = []
        self.listed = [checkpoint("g1", label="first")]
        self.breaks_off = False
        self.looks_for_s = 0.0
        self.told_after_s = 0.0

    def board(self, kind: MachineType) -> str | None:
        return "pc-q35-8.2" if self.runs and kind is MachineType.Q35 else None

    def told(self, workload: str) -> dict[str, Any] | None:
        time.sleep(self.told_after_s)
        return {"host": self.name, "pairing": 1, "seeding": {"done_bytes": 1, "total_bytes": 4, "round": 1}}

    async def screenshot(self, workload: str) -> bytes | None:
        return PNG if self.runs else None

    async def press(self, workload: str, button: str) -> bool:
        self.pressed.append(button)
        return self.runs

    async def console(self, workload: str, replay_bytes: int) -> ConsoleUse | None:
        if not self.runs:
            return None
        await self.console_of.says.put(f"{replay_bytes} of before".encode())
        return self.console_of

    def reaches(self, datastore: str) -> bool:
        return datastore == self.datastore

    async def checkpoints(self, datastore: str, workload: str) -> list[dict[str, Any]]:
        return self.listed

    async def verify(self, datastore: str, workload: str, checkpoint: str) -> Looks | None:
        return None if checkpoint == "none" else self._verified()

    async def _verified(self) -> Looks:
        for each in self.found:
            yield each
        await asyncio.sleep(self.looks_for_s)
        if self.breaks_off:
            raise Failed("It broke.")


class Pretended:
    """One agent as its API sees it."""

    def __init__(self, name: str, picture: Mirror, folder: Path) -> None:
        self.host, self.mirror, self.local = name, picture, Local(name)
        self.socket = folder / f"{name}.sock"
        files = folder / f"{name}.pem", folder / f"{name}.key"
        self.port = PeerPort("127.0.0.1", 0, folder / "ca.pem", *files)
        self.others: dict[str, int] = {}
        self.asked = 0
        self.store_reachable = True
        self.recorded: list[str] = []
        self.kept: dict[str, KeyValue] = {}
        self.figures = Figures()

    async def read(self, key: str) -> KeyValue | None:
        return self.kept.get(key)

    async def transact(self, transaction: Transaction) -> TransactionResult:
        if any((compare.key in self.kept) != bool(compare.revision) for compare in transaction.compares):
            return TransactionResult(False, 1)
        for write in transaction.writes:
            if isinstance(write, Put):
                self.kept[write.key] = KeyValue(write.key, write.value, 1, 1)
            else:
                self.kept.pop(write.key, None)
        return TransactionResult(True, 1)

    def now(self) -> float:
        return time.monotonic()

    def record(self, kind: str, **about: str) -> None:
        self.recorded.append(kind)

    async def ask_peer(
        self, host: str, method: str, path: str, body: bytes = b"", *, answer_s: float = 10.0
    ) -> peers.Answer:
        self.asked += 1
        context = peers.trusting(cast(peers.Credentials, self.port))
        peer = peers.Peer(host, "127.0.0.1", self.others[host])
        return await peers.ask(context, peer, peers.Request(method, path, body, answer_s))


def picture(**placed: Any) -> Mirror:
    machine = Machine(boot=KernelBoot("/k"))
    workload = Workload(
        "vm", (Module("vm", ()),), Kind.VM, machine=machine, protection=Protection.WARM, warm=WarmPolicy(on="shared")
    )
    placement = rec.PlacementRecord("vm", 2, "b", **placed)
    empty = Mirror()
    hosts = empty.hosts
    verdicts = empty.verdicts
    for name in "ab":
        hosts = hosts.set(name, Entry(host(name, datastores=("shared",)), 1, 1))
        verdicts = verdicts.set(name, Entry(rec.VerdictRecord(name, rec.Verdict.ALIVE), 1, 1))
    return replace(
        empty, hosts=hosts, verdicts=verdicts, placements=empty.placements.set("vm", Entry(placement, 1, 1)),
        workloads=empty.workloads.set("vm", Entry(rec.WorkloadRecord(workload), 1, 1)),
    )  # fmt: skip


@asynccontextmanager
async def two(folder: Path, seen: Mirror) -> AsyncIterator[tuple[Pretended, Pretended]]:
    """Agents a and b; b's machine is asked for at a."""
    authority = Authority(folder)
    authority.make("00112233445566ff")
    for name in "ab":
        authority.issue(name, "127.0.0.1")
    a, b = Pretended("a", seen, folder), Pretended("b", seen, folder)
    with free_port() as number:
        b.port = replace(b.port, port=number)
        a.others["b"] = number
        serve_a, serve_b = serving(cast(View, a), a.socket, None), serving(cast(View, b), b.socket, b.port)
        async with asyncio.timeout(2 * WITHIN_S), serve_b, serve_a:
            yield a, b


async def on(agent: Pretended, ask: Callable[[Client], Any]) -> Any:
    return await asyncio.to_thread(ask, Client(str(agent.socket)))


async def test_a_picture_comes_whole_from_where_it_runs(tmp_path: Path) -> None:
    async with two(tmp_path, picture()) as (a, b):
        assert await on(a, lambda client: client.content("/v1/workloads/vm/screenshot", 1 << 20)) == PNG
        b.local.runs = False
        with pytest.raises(Answered, match="vm does not run") as caught:
            await on(a, lambda client: client.content("/v1/workloads/vm/screenshot", 1 << 20))
        assert (caught.value.id, caught.value.exit_code) == ("machine.not-running", 1)


async def test_a_button_is_pressed_where_it_runs_and_an_unknown_one_nowhere(tmp_path: Path) -> None:
    async with two(tmp_path, picture()) as (a, b):
        path = "/v1/workloads/vm/button"
        assert (await on(a, lambda client: client.post(path, {"press": "pause"})))["host"] == "b"
        for wrong in ({"press": "explode"}, {}, {"press": "reset", "harder": True}):
            with pytest.raises(Answered, match="not what was expected"):
                await on(a, partial(Client.post, path=path, body=wrong))
        assert (b.local.pressed, b.recorded, a.recorded) == (["pause"], ["guest.asked_to_pause"], [])


async def test_a_console_is_used_through_another_agent_and_left_when_its_user_goes(tmp_path: Path) -> None:
    async with two(tmp_path, picture()) as (a, b):

        def use(client: Client) -> None:
            with client.stream("/v1/workloads/vm/console?replay=77", WITHIN_S) as streamed:
                assert streamed.header("Outlive-Host") == "b"
                assert streamed.read() == b"77 of before"
                session = streamed.header("Outlive-Console-Session")
                assert client.post_bytes(f"/v1/workloads/vm/console/{session}", b"\x03x\r") == {"taken": 3}
                for wrong in (session + "0", "b.", "b", "c.x", "b./../x"):
                    with pytest.raises(Answered):
                        client.post_bytes(f"/v1/workloads/vm/console/{wrong}", b"y")

        await on(a, use)
        await b.local.console_of.closed.wait()
        assert b.local.console_of.typed == b"\x03x\r"


async def test_a_console_ends_once_the_machine_is_placed_elsewhere(tmp_path: Path) -> None:
    async with two(tmp_path, picture()) as (a, b):

        def use(client: Client) -> None:
            with client.stream("/v1/workloads/vm/console", WITHIN_S) as streamed:
                assert streamed.read() == b"0 of before"
                moved = rec.PlacementRecord("vm", 3, "a")
                a.mirror = replace(a.mirror, placements=a.mirror.placements.set("vm", Entry(moved, 2, 2)))
                assert streamed.read() == b""

        await on(a, use)
        await b.local.console_of.closed.wait()


async def test_checkpoints_are_read_by_a_host_that_reaches_them(tmp_path: Path) -> None:
    at = "/v1/workloads/vm/checkpoints"
    async with two(tmp_path, picture()) as (a, b):
        listed = await on(a, lambda client: client.get(at))
        assert (listed["on"], [each["name"] for each in listed["checkpoints"]]) == ("shared", ["g1"])
        b.local.found = [
            {"name": "g1", "done_bytes": 1, "total_bytes": 2},
            {"name": "g1", "whole": True, "problem": ""},
        ]
        lines = await on(a, lambda client: [json.loads(line) for line in client.lines(f"{at}/verify")])
        assert lines == b.local.found
        with pytest.raises(Answered) as caught:
            await on(a, lambda client: list(client.lines(f"{at}/verify?checkpoint=none")))
        assert caught.value.id == "checkpoint.missing"
        b.local.breaks_off = True
        with pytest.raises(ClusterUnreachable):
            await on(a, lambda client: list(client.lines(f"{at}/verify")))
        b.local.datastore = None
        with pytest.raises(OutliveError, match="reaches the datastore shared"):
            await on(a, lambda client: client.get(at))


def whole(name: str, problem: str = "") -> dict[str, Any]:
    return {"name": name, "whole": not problem, "problem": problem}


async def test_what_a_machine_may_be_resumed_from_is_known_before_it_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two(tmp_path, picture()) as (a, b):
        checkpoints = Checkpoints(cast(View, a))
        b.local.listed = [
            checkpoint("g4", problem="its manifest cannot be read"),
            checkpoint("g3", differs="the memory in MiB was 1 when it was taken and is 2 here", label="other"),
            checkpoint("g2", label="good"),
        ]
        b.local.found = [whole("g2")]
        assert await checkpoints.to_resume("vm", "good") == "good"
        assert await checkpoints.to_resume("vm", "") == "g2"
        with pytest.raises(Missing, match="no checkpoint nothing"):
            await checkpoints.to_resume("vm", "nothing")
        with pytest.raises(Unlike, match="memory"):
            await checkpoints.to_resume("vm", "other")
        with pytest.raises(Damaged, match="manifest"):
            await checkpoints.to_resume("vm", "g4")
        b.local.listed[0]["generation"] = 1
        assert await checkpoints.to_resume("vm", "good") == "good"
        b.local.found = [whole("g2", "block 7 differs")]
        with pytest.raises(Damaged, match="block 7"):
            await checkpoints.to_resume("vm", "g2")
        with pytest.raises(Missing, match="could go on from"):
            await checkpoints.to_resume("vm", "")
        b.local.found, b.local.looks_for_s = [], WITHIN_S
        monkeypatch.setattr(checkpoints_api, "LOOKED_AT_S", 0.3)
        assert await checkpoints.to_resume("vm", "good") == "good", "its host looks at all of it before it is loaded"


async def test_how_a_machine_stands_is_told_within_a_second_or_left_out(tmp_path: Path) -> None:
    async with two(tmp_path, picture(standby="a", standby_claim=1, pairing=1)) as (a, _):
        told = await on(a, lambda client: client.get("/v1/workloads/vm"))
        assert told["machine"]["host"] == "b"
        copied = {"done_bytes": 1, "total_bytes": 4, "round": 1}
        assert told["replica"] == {"host": "a", "state": "seeding", "reason": "", "pairing": 1, **copied}
        a.others["b"] = 1
        await asyncio.sleep(0.4)
        asked = a.asked
        for _ in range(3):
            told = await on(a, lambda client: client.get("/v1/workloads/vm"))
            assert (told["machine"], told["replica"]["state"]) == (None, "asked for")
        assert a.asked == asked + 1, "a host that did not answer is left alone for a while"


async def test_a_board_is_one_that_every_host_makes(tmp_path: Path) -> None:
    async with two(tmp_path, picture()) as (a, b):
        assert await common_board(cast(View, a), MachineType.Q35) == "pc-q35-8.2"
        assert await common_board(cast(View, a), MachineType.PC) is None
        b.local.runs = False
        assert await common_board(cast(View, a), MachineType.Q35) is None
        a.others["b"] = 1
        assert await common_board(cast(View, a), MachineType.Q35) is None


async def test_another_agents_port_serves_nothing_but_its_own_part(tmp_path: Path) -> None:
    async with two(tmp_path, picture()) as (a, _):
        for method, path, body in (
            ("GET", "/v1/cluster", b""), ("GET", "/v1/workloads/vm", b""), ("GET", "/v1/workloads/vm/screenshot", b""),
            ("PUT", "/v1/workloads/x", b"x"), ("POST", "/v1/operations", b"{}"), ("PUT", "/v1/networks/x", b"{}"),
            ("GET", "/v1/hosts", b""), ("GET", "/v1/hosts/a/machines/vm", b""),
            ("GET", "/v1/hosts/b/machines/..%2f../checkpoints", b""),
            ("GET", "/v1/hosts/b/machines/x/checkpoints", b""),
            ("POST", "/v1/hosts/b/machines/vm/console/b.x", b"y"), ("DELETE", "/v1/hosts/b/machines/vm", b""),
        ):  # fmt: skip
            answer = await a.ask_peer("b", method, path, body)
            assert answer.status in (404, 405), path
            answer.close()


async def test_a_peer_that_is_slow_costs_no_more_than_its_time(tmp_path: Path) -> None:
    class Slow(Pretended):
        async def ask_peer(self, *given: Any, **more: Any) -> peers.Answer:
            await asyncio.sleep(WITHIN_S)
            raise AssertionError

    slow = cast(View, Slow("a", Mirror(), tmp_path))
    with pytest.raises(ClusterUnreachable, match=r"within 0\.1 s"):
        await relaying.whole(slow, "b", "GET", "/x", most_bytes=10, within_s=0.1)
