"""Guests in trouble: a disk that fails for a while, and a guest that hangs."""

import asyncio
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.machine import MODULE, GuestWatch
from outlive.runtime.vm import following
from outlive.runtime.vm.states import GuestState

from .conftest import Place, disk, machines

pytestmark = pytest.mark.timeout(300)

_AGENT = rb"""port=$(echo /dev/vport*p1)
answer() { n=${1##*: }; echo "{\"return\": ${n%%\}*}}"; }
while :; do if read -r line; then answer "$line"; else sleep 0.1; fi; done <>$port >&0 & echo agent at $((6 * 7))
"""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for next to nothing."""
    folder = tmp_path / "disks"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "test", folder], check=True, timeout=60)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True, timeout=60)


async def test_a_guest_waits_for_a_disk_that_is_full_and_goes_on_when_there_is_room(place: Place, small: Path) -> None:
    machine = place.machine(disks=(disk(),))
    seat = place.seat(machine)
    async with machines(place, (machine, seat)) as [vm]:
        await vm.start(MODULE)
        await place.said(seat, b"/ # ")
        console = await vm.console.attach()
        await console.write(
            b"dd if=/dev/urandom of=/dev/vda bs=64k count=16 conv=fsync && echo all $((7 * 6)) written\n"
        )
        await place.until(lambda: vm.state is GuestState.HALTED_BY_DISK)
        assert "guest.disk-failed" in [noted.what for noted in place.noted]
        grow = await asyncio.create_subprocess_exec("mount", "-o", "remount,size=64m", str(small))
        assert await grow.wait() == 0
        await place.said(seat, b"all 42 written")
        assert vm.state is GuestState.RUNNING
        assert [status for _, status, _ in place.told] == [ModuleStatus.RUNNING]


@pytest.mark.soak
async def test_a_guest_that_hangs_is_reset_and_told_when_that_does_not_help(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "LOOK_EVERY_S", 0.5)
    watch = GuestWatch(enabled=True, silence_s=2.0, no_io_s=2.0, grace_s=0.0, resets=1, window_s=1000.0)
    machine = place.machine(guest_agent=True, watch=watch, disks=(disk(),), stop_s=0.0)
    seat = place.seat(machine)
    async with machines(place, (machine, seat)) as [vm]:
        await vm.start(MODULE)
        for run in (1, 2):
            await place.said(seat, b"/ # ")
            console = await vm.console.attach()
            await console.write(_AGENT)
            await place.said(seat, b"agent at 42")
            await asyncio.sleep(4 * watch.silence_s)
            assert (len(place.told), _hung(place)) == (1, run - 1)
            await console.write(b"kill $!\n")
            await place.until(partial(_reset_or_told, place, run))
            _emptied(seat.console_log)
        _, status, reason = await place.until_told(2)
        assert _hung(place) == 1
    assert status is ModuleStatus.FAILED
    assert "hangs, and was reset 1 times" in reason


def _hung(place: Place) -> int:
    return [noted.what for noted in place.noted].count("guest.hung")


def _reset_or_told(place: Place, run: int) -> bool:
    return _hung(place) == run or len(place.told) > 1


def _emptied(log: Path) -> None:
    log.write_bytes(b"")
