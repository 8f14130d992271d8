"""The tiny guest boots under a real emulator, counts, writes durably, and ends when its power button is pressed."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from outlive.lab.guests.clients import Asking, Clients, GuestSilent, Server
from outlive.lab.guests.history import judge
from outlive.lab.guests.tiny import READY, tiny

from .booting import ADDRESS, BOOT_S, PREFIX, Booted, booted

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Booted]:
    made = tiny(say=print)
    disk = tmp_path / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(16 << 20)
    append = made.append_for(f"{ADDRESS}/{PREFIX}")
    with booted(tmp_path, made.kernel, made.initrd, append, disk, "-m", "128", "-device", "pvpanic") as on:
        yield on


def test_it_counts_writes_and_ends_by_its_power_button(guest: Booted, tmp_path: Path) -> None:
    with Server.reach(ADDRESS, BOOT_S, namespace=guest.namespace) as server:
        asking = Asking(ADDRESS, connections=4, seconds=1.0)
        with Clients(asking, tmp_path / "counted", namespace=guest.namespace) as clients:
            counted = judge(clients.wait(120))
        with Clients(Asking(ADDRESS, seconds=0.5, request="dw"), tmp_path / "written", namespace=guest.namespace) as w:
            written = judge(w.wait(120))
        state = server.state()
    assert counted.clean, counted
    assert written.clean, written
    assert state["counter"] == str(counted.answered)
    assert state["written"] == str(written.answered)
    newest = written.answered.to_bytes(8, "little")
    with (tmp_path / "disk.raw").open("rb") as disk:
        disk.seek(written.answered * 4096)
        assert disk.read(4096) == newest * 512
    assert READY in guest.console()
    guest.press_power()
    assert guest.emulator.wait(60) == 0


@pytest.mark.soak  # panics stay, in runtime/vm
def test_it_panics_when_asked_to_and_the_emulator_is_told(guest: Booted) -> None:
    with Server.reach(ADDRESS, BOOT_S, namespace=guest.namespace) as server:
        told: list[object] = []
        waiting = threading.Thread(target=lambda: told.append(guest.until_event("GUEST_PANICKED", 60)))
        waiting.start()
        while waiting.is_alive() and not told:
            server.tell("panic")
            waiting.join(1)
        with pytest.raises(GuestSilent):
            server.ask("get", timeout_s=0.5)
    assert told
