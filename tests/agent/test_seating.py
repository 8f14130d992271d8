"""A machine's seat follows from its name alone, fits the kernel's limits, and never hides a disk that is lost."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from outlive.agent import seating
from outlive.agent.seating import Floor
from outlive.cluster.commands import Role
from outlive.cluster.machine import MODULE, Disk, Machine, Nic
from outlive.cluster.workload import Kind, Module, Protection, Workload
from outlive.errors import Failed
from outlive.replication.comm_config import ReplicatedDisk, read_config, write_config
from outlive.replication.disk_copy import LABELS, DiskCopies, payloads_of
from outlive.replication.disk_writes import DiskWrite
from outlive.runtime.vm.seat import LONGEST_SOCKET_PATH, Held, PrivateMemory, SharedMemory, Tap

from .test_holdings import NoCards

LONGEST_NAME = "w" * 63
NICS = (Nic("lan", "52:54:00:00:00:01", "br0"), Nic("n" * 63, "52:54:00:00:00:02", network="blue"))
DISKS = (Disk("root", size_mib=1), Disk("data", size_mib=2), Disk("cd", read_only=True))


def machine(protection: Protection = Protection.HOT, name: str = "web", disks: tuple[Disk, ...] = DISKS) -> Workload:
    made = Machine(memory_mib=64, disks=disks, nics=NICS)
    return Workload(name, (Module(MODULE, ()),), Kind.VM, protection, machine=made)


def on_shared(protection: Protection = Protection.COLD) -> Workload:
    return machine(protection, disks=(Disk("root", on="shared", size_mib=1), Disk("data", size_mib=1)))


@pytest.fixture
def floor(tmp_path: Path) -> Floor:
    return Floor("c", "a", "127.0.0.1", tmp_path / "vms", tmp_path / "ram", tmp_path / "v", NoCards())


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "shared" / "data" / "web"
    folder.mkdir(parents=True)
    return {"shared": folder}


TAPS = {nic.name: f"ol{number}" for number, nic in enumerate(NICS)}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("protection", Protection)
def test_a_seat_is_what_its_protection_asks_for(floor: Floor, role: Role, protection: Protection) -> None:
    workload = machine(protection)
    seat = seating.seat_of(floor, workload, role, TAPS, {})
    hot, followed = protection is Protection.HOT, protection is not Protection.COLD
    assert {type(end) for end in seat.nics.values()} == {Held if hot else Tap}
    assert type(seat.memory) is (SharedMemory if followed else PrivateMemory)
    assert (seat.comm_qmp is not None, seat.in_epochs) == (followed, hot)
    assert seat.incoming is (role is not Role.PRIMARY)
    assert not seat.may_make_disks
    # A later agent finds the same without being told.
    assert seating.seat_of(replace(floor), workload, role, TAPS, {}) == seat


def test_sockets_fit_the_kernels_limit_however_long_names_are(floor: Floor) -> None:
    floor = replace(floor, run=Path("/run/outlive/v"))
    seat = seating.seat_of(floor, machine(name=LONGEST_NAME), Role.PRIMARY, TAPS, {})
    held = [end for end in seat.nics.values() if isinstance(end, Held)]
    sockets = [seat.agents_qmp, seat.console, seat.comm_qmp, *(each.local for each in held)]
    sockets += [each.remote for each in held]
    assert len(set(sockets)) == len(sockets) == 7
    assert all(len(os.fsencode(path)) <= LONGEST_SOCKET_PATH for path in sockets if path is not None)


def test_machines_have_nothing_in_common(floor: Floor) -> None:
    ones = [machine(name=name) for name in ("web", "web-1", LONGEST_NAME, LONGEST_NAME[:-1])]
    seats = [seating.seat_of(floor, each, Role.PRIMARY, TAPS, {}) for each in ones]
    for paths in (
        [seat.folder for seat in seats],
        [seat.run for seat in seats],
        [path for seat in seats for path in seat.disks.values()],
        [seat.memory.file for seat in seats if isinstance(seat.memory, SharedMemory)],
    ):
        assert len(set(paths)) == len(paths)


def test_disks_are_where_their_datastore_is(floor: Floor, data: dict[str, Path]) -> None:
    seat = seating.seat_of(floor, on_shared(), Role.PRIMARY, TAPS, data)
    assert seat.disks == {"root": data["shared"] / "root.raw", "data": floor.folder / "web" / "disks" / "data.raw"}
    assert seating.lock_path(on_shared(), data) == data["shared"].parent / "web.lock"
    assert seating.lock_path(machine(), {}) is None


async def test_a_standbys_disks_are_made_whole_at_once_and_never_over_what_is_there(floor: Floor) -> None:
    await seating.make_room(floor, machine(), Role.STANDBY)
    disks = floor.folder / "web" / "disks"
    assert {path.name: path.stat().st_size for path in disks.iterdir()} == {"root.raw": 1 << 20, "data.raw": 2 << 20}
    (disks / "root.raw").write_bytes(b"what was written")
    (disks / "data.raw").rename(disks / "data.raw.new")  # as if it had been interrupted
    await seating.make_room(floor, machine(), Role.STANDBY)
    assert (disks / "root.raw").read_bytes() == b"what was written"
    assert (disks / "data.raw").stat().st_size == 2 << 20
    assert {path.name for path in disks.iterdir()} == {"root.raw", "data.raw"}


@pytest.mark.parametrize("role", [Role.PRIMARY, Role.INCOMING])
async def test_nobody_else_is_given_disks(floor: Floor, role: Role) -> None:
    await seating.make_room(floor, machine(), role)
    assert list((floor.folder / "web" / "disks").iterdir()) == []


async def test_a_standbys_disk_of_unknown_size_is_refused_with_what_to_do(floor: Floor) -> None:
    with pytest.raises(Failed) as caught:
        await seating.make_room(floor, machine(disks=(Disk("root", source="/images/a.raw"),)), Role.STANDBY)
    assert "size_mib" in caught.value.remedy


async def test_one_mark_is_enough_to_know_that_disks_were_made(floor: Floor, data: dict[str, Path]) -> None:
    workload = on_shared()
    await seating.make_room(floor, workload, Role.PRIMARY)
    assert not await seating.were_made(floor, workload, data)
    await seating.mark_made(floor, workload, data)
    await seating.mark_made(floor, workload, data)
    for lost in (floor.folder / "web" / seating.MADE, data["shared"] / seating.MADE):
        assert await seating.were_made(floor, workload, data)
        lost.unlink()
    assert not await seating.were_made(floor, workload, data)


async def test_what_ends_with_a_stay_goes_and_disks_stay(floor: Floor, data: dict[str, Path]) -> None:
    workload = on_shared()
    await seating.make_room(floor, workload, Role.PRIMARY)
    await seating.mark_made(floor, workload, data)
    disk = floor.folder / "web" / "disks" / "data.raw"
    for path in (disk, floor.ram_file("web"), floor.run_folder("web") / "qmp.sock"):
        path.touch()
    for _ in range(2):
        seating.forget(floor, "web")
    assert disk.exists()
    assert not floor.ram_file("web").exists()
    assert not floor.run_folder("web").exists()
    assert await seating.were_made(floor, workload, data)


@pytest.mark.parametrize("role", [Role.PRIMARY, Role.STANDBY])
async def test_a_manager_is_told_all_that_its_file_must_hold(floor: Floor, tmp_path: Path, role: Role) -> None:
    await seating.make_room(floor, machine(), Role.STANDBY)
    seat = seating.seat_of(floor, machine(), role, TAPS, {})
    config = seating.comm_config_of(floor, machine(), role, seat, tmp_path / "comm", (7, 3), 4711)
    write_config(tmp_path / "comm.json", config)
    assert read_config(tmp_path / "comm.json") == config
    assert (config.role, config.generation, config.pairing) == (role.value, 7, 3)
    assert (config.qemu_pid, config.ram_bytes) == (4711, 64 << 20)
    assert [(disk.name, disk.size_bytes) for disk in config.disks] == [("root", 1 << 20), ("data", 2 << 20)]
    assert [(nic.name, nic.tap) for nic in config.nics] == list(TAPS.items())


def copies(floor: Floor) -> DiskCopies:
    files = {disk.name: seating.disk_file(floor, "web", disk, {}) for disk in DISKS[:2]}
    replicated = [ReplicatedDisk(name, name, str(path), path.stat().st_size) for name, path in files.items()]
    return DiskCopies(replicated, floor.folder, durable=False)


async def test_disks_of_a_standby_that_was_not_finished_are_not_started_from(floor: Floor) -> None:
    await seating.make_room(floor, machine(), Role.STANDBY)
    await seating.make_startable(floor, machine())
    copy = copies(floor)
    copy.seed(7, 3, [DiskWrite(0, 0, 5, memoryview(b"first"))])
    copy.close()
    for _ in range(2):
        with pytest.raises(Failed) as caught:
            await seating.make_startable(floor, machine())
        assert (caught.value.id, "pairing 3 of generation 7" in caught.value.cause) == ("vm.disk-not-whole", True)


async def test_disks_of_a_standby_are_brought_to_its_last_whole_epoch_before_they_are_started_from(
    floor: Floor,
) -> None:
    await seating.make_room(floor, machine(), Role.STANDBY)
    copy = copies(floor)
    copy.seed(7, 3, [DiskWrite(0, 0, 5, memoryview(b"first"))])
    copy.apply(7, 3, 1, [])
    copy.commit(7, 3, 2, payloads_of([DiskWrite(0, 0, 6, memoryview(b"second"))]))
    copy.close()  # acknowledged, and not written to the disk yet
    for _ in range(2):
        await seating.make_startable(floor, machine())
        with seating.disk_file(floor, "web", DISKS[0], {}).open("rb") as disk:
            assert disk.read(6) == b"second"


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff" * 9, b'{"name": "\xff"}', b"[" * 100_000, b'{"whole": 1}'])
async def test_disks_of_which_it_cannot_be_read_what_they_hold_are_not_started_from(floor: Floor, raw: bytes) -> None:
    await seating.make_room(floor, machine(), Role.STANDBY)
    copy = copies(floor)
    copy.seed(7, 3, [DiskWrite(0, 0, 5, memoryview(b"first"))])
    copy.close()
    (floor.folder / "web" / "disks" / LABELS).write_bytes(raw)
    with pytest.raises(Failed) as caught:
        await seating.make_startable(floor, machine())
    assert caught.value.id == "vm.disk-not-whole"


def test_a_host_without_an_emulator_says_why(floor: Floor) -> None:
    with pytest.raises(Failed) as caught:
        replace(floor, lacking="qemu-system-x86 is not installed").emulator()
    assert caught.value.cause == "qemu-system-x86 is not installed"
