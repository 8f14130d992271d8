"""A hot machine in rarer troubles: links cut one way, full disks, slow standbys, power cuts while nobody follows."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outlive.lab import hosts, machines, ready
from outlive.lab.guests.history import History

from .machine_scene import AGAIN_S, MachineScene, machine_on_stage, nothing_lost
from .shared import SharedLab

HOT = machines.Wish(protection="hot", disk_on="local")
ON_SMALL_DISKS = machines.Wish(protection="hot", disk_on="local", disk_mib=48)
SEEDED_SLOWLY = machines.Wish(protection="hot", disk_on="local", more="[hot]\nbandwidth_mib_s = 8\n")
MIB = 1 << 20


@pytest.fixture
def scene(shared: SharedLab, tmp_path: Path) -> Iterator[MachineScene]:
    with machine_on_stage(shared, tmp_path, HOT) as played:
        yield played


@pytest.fixture
def small_disks(shared: SharedLab) -> Iterator[None]:
    """Hosts whose disks are soon full."""
    lab = shared.lab()
    for host in lab.plan.hosts:
        hosts.mount_memory(lab.plan.host_folder(host.name) / "vms", "192m")
    yield
    shared.end()


def until(holds: Callable[[], bool], what: str, within_s: float = AGAIN_S) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def placed(scene: MachineScene, *besides: str) -> dict[str, object]:
    return machines.placement(scene.lab, scene.name, besides=besides)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(MIB))


def seeding(scene: MachineScene) -> bool:
    machine = ready.any_client(scene.lab).get(f"/v1/workloads/{scene.name}").get("machine") or {}
    return bool(machine.get("seeding"))


def most_told(history: History) -> int:
    return max(each.value for each in history.answers)


@pytest.mark.soak  # a cut while nothing is paired; those of pairs stay
def test_a_power_cut_while_the_standby_is_seeded_leaves_the_machine_to_its_own_disk(
    shared: SharedLab, tmp_path: Path
) -> None:
    with machine_on_stage(shared, tmp_path, SEEDED_SLOWLY) as scene:
        with scene.clients("dw", 2) as writing:
            time.sleep(1)
            scene.kill_processes(scene.standby, "comm", signal.SIGKILL)
            scene.until_told("workload.unprotected")
            until(lambda: bool(placed(scene)["standby"]), "nobody is asked to follow again")
            until(lambda: seeding(scene), "seeding does not begin")
            assert not placed(scene)["paired"]
            told = most_told(writing.so_far())
            scene.lab.kill(scene.primary)
        # Nobody else has it whole, so nobody else may go on with it.
        time.sleep(4)
        assert placed(scene, scene.primary)["host"] in (scene.primary, None)
        assert "workload.taken_over" not in scene.kinds(besides=(scene.primary,))
        scene.lab.start(scene.primary)
        assert scene.runs_on() == scene.primary
        assert int(scene.state()["written"]) >= told


@pytest.mark.soak  # standbys that die stay
def test_a_standby_whose_disk_is_full_leaves_the_primary_alone_and_another_follows(
    shared: SharedLab, small_disks: None, tmp_path: Path
) -> None:
    with machine_on_stage(shared, tmp_path, ON_SMALL_DISKS) as scene:
        with scene.clients("dw", 2) as writing:
            fill(scene.lab.plan.host_folder(scene.standby) / "vms" / "filler")
            scene.until_told("workload.unprotected")
            until(lambda: placed(scene)["standby"] not in (None, "", scene.standby), "nobody else is asked to follow")
            primary, third = scene.followed()
            history = writing.stop()
        nothing_lost(history)
        assert (primary, scene.runs_on()) == (scene.primary, scene.primary)
        # What the first standby could not take is with the next one.
        assert third not in (scene.primary, scene.standby)
        scene.lab.kill(scene.primary)
        assert scene.runs_elsewhere() == third
        assert int(scene.state()["written"]) >= most_told(history)


def reign(scene: MachineScene) -> tuple[int, int]:
    found = placed(scene)
    return int(str(found["generation"])), int(str(found["pairing"]))


@pytest.mark.soak  # links that are cut both ways stay
def test_a_link_that_is_cut_one_way_leaves_exactly_one_whichever_way_it_is(scene: MachineScene) -> None:
    with scene.clients() as clients:
        time.sleep(1)
        pair = (scene.primary, scene.standby)
        for way in (1, -1):
            source, target = pair[::way]
            before = reign(scene)
            scene.lab.cut_link(source, target)
            # Either side may win: the primary goes on at the next pairing, the standby at the next generation.
            until(lambda was=before: reign(scene) > was, "the pairing does not end")  # type: ignore[misc]
            scene.lab.heal(source, target)
            pair = scene.followed()
        nothing_lost(clients.stop())
    assert scene.runs_on() == pair[0]


@pytest.mark.soak
def test_a_standby_that_runs_in_fits_and_starts_costs_time_and_no_memory(scene: MachineScene) -> None:
    def resident_mib() -> int:
        texts = [Path(f"/proc/{pid}/status").read_text() for pid in scene.processes(scene.primary, "comm")]
        lines = [line for text in texts for line in text.splitlines() if line.startswith("RssAnon")]
        return sum(int(line.split()[1]) for line in lines) // 1024

    with scene.clients() as clients, scene.clients("dw", 2) as writing:
        time.sleep(1)
        before, most = resident_mib(), 0
        deadline = time.monotonic() + 8
        while time.monotonic() < deadline and scene.processes(scene.standby, "comm"):
            for number, for_s in ((signal.SIGSTOP, 0.08), (signal.SIGCONT, 0.04)):
                for pid in scene.processes(scene.standby, "comm"):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
                time.sleep(for_s)
            most = max(most, resident_mib())
        histories = clients.stop(), writing.stop()
    for history in histories:
        nothing_lost(history)
    assert 0 < most < before + 128


def test_after_both_hosts_lost_power_at_once_all_that_was_told_is_on_a_whole_disk(scene: MachineScene) -> None:
    pair = (scene.primary, scene.standby)
    with scene.clients("dw", 2) as writing:
        cuts = [threading.Thread(target=scene.lab.kill, args=(host,)) for host in pair]
        for cut in cuts:
            cut.start()
        for cut in cuts:
            cut.join()
        told = most_told(writing.so_far())
    assert told > 20
    for host in pair:
        scene.lab.start(host)
    assert scene.runs_on() in pair
    assert int(scene.state()["written"]) >= told
    scene.followed()
