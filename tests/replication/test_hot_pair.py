"""What a hot machine's clients see while its hosts are harmed: real QEMUs, real managers, real connections."""

import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from outlive.lab.guests.clients import Asking, Clients
from outlive.lab.guests.history import History, judge
from outlive.replication.comm_config import HotValues
from outlive.replication.control import (
    Adopted,
    Alone,
    BecameFailed,
    HandedOver,
    HandOver,
    PeerLost,
    Progress,
    WentAlone,
)

from .pair_scene import GUEST, PairScene, Shape, SharedPair, Side, hot_pair

pytestmark = [pytest.mark.lab, pytest.mark.timeout(150)]

BLOCK = 4096
SLOTS = 4096
DIFFERENCES = '"disks": "differences"'
WITH_DISK_BY_TLS = Shape(disk_mib=(64,), tls=True)


@pytest.fixture(scope="module")
def shared() -> Iterator[SharedPair]:
    made = SharedPair()
    yield made
    made.end()


@pytest.fixture
def scene(shared: SharedPair, request: pytest.FixtureRequest) -> PairScene:
    """A pair with a disk that follows; a test that uses it ends with a takeover."""
    return shared.begin(WITH_DISK_BY_TLS, request.session.testsfailed)


def clients(scene: PairScene, folder: Path, *, nic: int = 0, request: str = "inc", count: int = 4) -> Clients:
    asking = Asking(GUEST[nic], connections=count, request=request, first_id=next(scene.first_ids), after_s=20.0)
    return Clients(asking, folder / f"record-{asking.first_id}", namespace=scene.clients)


def cut_power(side: Side) -> float:
    """Nothing is said for the dying: links first."""
    side.links("down", "rep0", "up0")
    side.kill()
    return time.monotonic()


def take_over(scene: PairScene, side: Side, after: float) -> tuple[PeerLost, Adopted]:
    return side.wait(PeerLost, after=after), scene.adopt(side, after)


def assert_clean(history: History, *, alone: bool = True) -> None:
    outcome = judge(history, alone=alone)
    assert (outcome.lost, outcome.duplicated, outcome.broken_connections) == (0, 0, 0), outcome
    assert outcome.answered > 0


def highest_number(disk: Path) -> int:
    """The newest number on a disk, after checking that none below it is missing or torn."""
    content = disk.read_bytes()
    numbers = []
    for slot in range(min(SLOTS, len(content) // BLOCK)):
        block = content[slot * BLOCK : (slot + 1) * BLOCK]
        number = int.from_bytes(block[:8], "little")
        assert block == number.to_bytes(8, "little") * (BLOCK // 8), f"slot {slot} is torn"
        if number:
            numbers.append(number)
    highest = max(numbers, default=0)
    assert sorted(numbers) == list(range(highest - len(numbers) + 1, highest + 1))
    return highest


@pytest.mark.soak
def test_connections_outlive_a_power_cut_with_two_processors_a_gigabyte_two_cards_and_two_disks(tmp_path: Path) -> None:
    with hot_pair(Shape(memory_mib=1024, cpus=2, machine="q35", nics=2, disk_mib=(32, 8))) as scene:
        idle = scene.server()
        before = idle.state()
        with clients(scene, tmp_path) as first, clients(scene, tmp_path, nic=1, count=2) as second:
            first.until_answered(4, 30)
            second.until_answered(2, 30)
            time.sleep(0.7)
            cut = cut_power(scene.p)
            lost, _ = take_over(scene, scene.s, cut)
            time.sleep(1.5)
            histories = first.stop(), second.stop()
        for history in histories:
            assert_clean(history, alone=False)
        told = [answer.value for history in histories for answer in history.answers]
        assert len(told) == len(set(told)), "a number was given away twice"
        assert lost.reason == "silence"
        assert idle.state()["instance"] == before["instance"]
        idle.close()


def test_the_standbys_disk_is_exactly_the_last_whole_epochs(scene: PairScene, tmp_path: Path) -> None:
    with clients(scene, tmp_path, request="dw", count=3) as writing:
        writing.until_answered(3, 30)
        time.sleep(1.0)
        cut = cut_power(scene.p)
    acknowledged = max(answer.value for answer in writing.so_far().answers)
    scene.s.wait(PeerLost, after=cut)
    time.sleep(0.3)
    on_disk = highest_number(scene.s.disk(0))
    scene.adopt(scene.s, cut)
    with scene.server() as server:
        state = server.state()
    # What was under way at the cut may have been done since: one write for each of three connections.
    assert acknowledged <= on_disk
    assert on_disk - 1 <= int(state["written"]) <= on_disk + 4, (on_disk, state)
    assert not (scene.s.folder / "disk-labels.json").exists()


def test_a_primary_cut_off_holds_until_told_alone_and_then_only_differences_are_sent_again(
    scene: PairScene, tmp_path: Path
) -> None:
    before = scene.p.told(DIFFERENCES)
    with clients(scene, tmp_path, request="dw", count=2) as writing:
        writing.until_answered(2, 30)
        cut = time.monotonic()
        scene.p.links("down", "rep0")
        scene.p.wait(PeerLost, after=cut)
        lost = scene.s.wait(PeerLost, after=cut)
        assert lost.epoch > 0
        time.sleep(0.3)
        held = len(writing.so_far().answers)
        time.sleep(0.7)
        assert len(writing.so_far().answers) == held, "a frame left unacknowledged"
        scene.pairing += 1
        scene.p.send(Alone(scene.pairing))
        scene.p.wait(WentAlone, after=cut)
        time.sleep(1.0)
        assert len(writing.so_far().answers) > held
        scene.p.links("up", "rep0")
        scene.pair(scene.p, scene.s)
        assert_clean(writing.stop())
    assert scene.p.told(DIFFERENCES) == before + 1
    cut = cut_power(scene.p)
    take_over(scene, scene.s, cut)
    with scene.server() as server:
        assert int(server.state()["written"]) == highest_number(scene.s.disk(0))
        assert int(server.ask(f"dw {next(scene.first_ids)} 1").split()[0])


def test_a_stopped_manager_that_wakes_after_the_takeover_lets_nothing_out(scene: PairScene, tmp_path: Path) -> None:
    with clients(scene, tmp_path) as counting:
        counting.until_answered(4, 30)
        assert scene.p.comm is not None
        stopped = time.monotonic()
        scene.p.comm.send_signal(signal.SIGSTOP)
        take_over(scene, scene.s, stopped)
        scene.p.comm.send_signal(signal.SIGCONT)
        lost = scene.p.wait(PeerLost, after=stopped)
        time.sleep(1.0)
        scene.p.kill()
        assert lost.reason
        assert_clean(counting.stop())


def test_a_hand_over_by_tls_loses_nothing_and_the_roles_swap(scene: PairScene, tmp_path: Path) -> None:
    with clients(scene, tmp_path) as counting:
        counting.until_answered(4, 30)
        scene.p.send(HandOver())
        scene.p.wait(HandedOver)
        undone = time.monotonic()
        scene.pairing += 1
        scene.p.send(Alone(scene.pairing))
        scene.p.wait(WentAlone, after=undone)
        scene.pair(scene.p, scene.s)
        time.sleep(0.5)
        began = time.monotonic()
        scene.p.send(HandOver())
        scene.s.wait(HandedOver, after=began)
        scene.adopt(scene.s, began)
        scene.p.kill()
        time.sleep(1.0)
        # The new primary can be followed in turn, by what was the primary's host.
        scene.follow_anew(scene.s)
        time.sleep(0.5)
        cut = cut_power(scene.p)
        take_over(scene, scene.s, cut)
        time.sleep(1.0)
        assert_clean(counting.stop())


def test_a_new_manager_takes_over_a_running_machine_from_one_that_died(scene: PairScene, tmp_path: Path) -> None:
    with clients(scene, tmp_path, request="dw", count=2) as writing:
        writing.until_answered(2, 30)
        scene.p.kill(qemu=False)
        assert scene.s.wait(PeerLost).epoch > 0
        scene.pairing += 1
        scene.p.start_comm("primary", scene.generation, scene.pairing)
        scene.pair(scene.p, scene.s)
        time.sleep(0.5)
        cut = cut_power(scene.p)
        take_over(scene, scene.s, cut)
        time.sleep(1.0)
        assert_clean(writing.stop())


def test_a_guest_that_switches_itself_off_is_said_to_have_ended(scene: PairScene, shared: SharedPair) -> None:
    with scene.server() as server:
        server.tell("poweroff")
    assert scene.p.wait(BecameFailed).reason == "guest-ended"
    assert scene.s.wait(PeerLost).reason == "guest-ended"
    shared.end()


def test_a_primary_that_lives_but_gets_nowhere_is_lost_too(tmp_path: Path) -> None:
    hot = HotValues(silence_ms=400.0, progress_s=2.0)
    with hot_pair(Shape(hot=hot, watched=False)) as scene, clients(scene, tmp_path) as counting:
        counting.until_answered(4, 30)
        assert scene.p.qemu is not None
        hung = time.monotonic()
        scene.p.qemu.send_signal(signal.SIGSTOP)
        lost, _ = take_over(scene, scene.s, hung)
        assert lost.reason == "no-progress"
        time.sleep(0.5)
        scene.p.kill()
        assert_clean(counting.stop())


@pytest.mark.soak  # what slows it stays, in test_feed
def test_a_slow_standby_slows_the_guest_and_fills_no_memory(tmp_path: Path) -> None:
    hot = HotValues(silence_ms=400.0, bandwidth_mib_s=24.0, progress_s=60.0)
    with hot_pair(Shape(memory_mib=256, hot=hot)) as scene:
        assert scene.p.comm is not None
        before = resident_mib(scene.p.comm.pid)
        with scene.server() as server, clients(scene, tmp_path, count=1) as counting:
            counting.until_answered(1, 30)
            server.ask("dirty 40000 30000 4096")
            time.sleep(6.0)
            assert resident_mib(scene.p.comm.pid) - before < 500
            told = scene.p.wait(Progress, after=time.monotonic())
            assert told.unacknowledged <= hot.unacknowledged
            assert told.epochs > 1
            server.ask("dirty 0 0", timeout_s=90.0)
            assert_clean(counting.stop())
        assert not [event for _, event in scene.p.events if isinstance(event, (PeerLost, BecameFailed))]


def resident_mib(pid: int) -> int:
    """Memory of a process that nobody else has, in MiB: what it maps of the guest is not counted."""
    match = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match.group(1)) // 1024
