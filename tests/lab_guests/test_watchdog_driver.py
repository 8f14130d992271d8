"""A guard with a driver of the kernel's own, softdog, in a machine that it really resets."""

import re
import subprocess
from pathlib import Path

import pytest

from outlive import native
from outlive.lab.guests.archive import archive, device, file, folder, link
from outlive.lab.guests.kept import guests_folder
from outlive.lab.guests.packages import Kernel, cloud_kernel

from .booting import BOOT_S

pytestmark = [pytest.mark.lab, pytest.mark.soak, pytest.mark.timeout(600)]

PARTS = Path(__file__).with_name("watchdog_guest")
NS_PER_S = 1_000_000_000


@pytest.fixture(scope="module")
def boot(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Kernel and initial file system of a machine with a guard and a watchdog."""
    made = tmp_path_factory.mktemp("watchdog")
    kernel = cloud_kernel(guests_folder() / "watchdog", ("softdog",), print)
    words = ["cc", "-std=c17", "-Wall", "-Wextra", "-Werror", str(PARTS / "client.c"), "-o", str(made / "client")]
    subprocess.run(words, check=True)
    (made / "initrd").write_bytes(_initial(kernel, made / "client"))
    return kernel.image, made / "initrd"


def _initial(kernel: Kernel, client: Path) -> bytes:
    guard = native.find("outlive-guard")
    told = subprocess.run(["ldd", str(guard)], capture_output=True, text=True, check=True).stdout
    libraries = [Path(path) for path in re.findall(r"(/\S+) \(0x", told)]
    folders = {"bin", "dev", "etc", "lib", "lib/modules", "proc", "sys", "tmp"}
    for path in libraries:
        folders |= {str(each).lstrip("/") for each in path.parents if str(each) != "/"}
    return archive(
        (
            *(folder(name) for name in sorted(folders)),
            device("dev/console", 5, 1),
            file("bin/busybox", kernel.busybox.read_bytes(), 0o755),
            link("bin/sh", "busybox"),
            file("init", (PARTS / "init").read_bytes(), 0o755),
            file("bin/outlive-guard", guard.read_bytes(), 0o755),
            file("bin/client", client.read_bytes(), 0o755),
            *(file(str(path).lstrip("/"), path.read_bytes(), 0o755) for path in libraries),
            file("etc/modules", "".join(f"{path.name}\n" for path in kernel.modules).encode()),
            *(file(f"lib/modules/{path.name}", path.read_bytes()) for path in kernel.modules),
        )
    )


def console(boot: tuple[Path, Path], case: str) -> str:
    """All that a machine says until it is reset, for which its emulator ends."""
    kernel, initrd = boot
    words = (
        *("qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-m", "256", "-nodefaults", "-display", "none"),
        *("-no-reboot", "-kernel", str(kernel), "-initrd", str(initrd), "-serial", "stdio"),
        *("-append", f"console=ttyS0 quiet panic=0 no_timer_check case={case}"),
    )
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=BOOT_S + 120, check=True)
    assert "watchdog=2s:Software_Watchdog" in done.stdout, done.stdout
    return done.stdout


def over_s(said: str) -> float:
    """From when on others may act, on that machine's clock."""
    (found,) = re.findall(r"asked DEADLINE \d+ (\d+)", said)
    return int(found) / NS_PER_S


def last_alive_s(said: str) -> float:
    return max(float(each) for each in re.findall(r"alive (\d+\.\d+)", said))


def test_a_guard_that_ends_in_order_leaves_the_driver_disarmed(boot: tuple[Path, Path]) -> None:
    assert "kept" in console(boot, "ends")


def test_the_driver_resets_a_machine_whose_guard_was_killed_before_others_may_act(boot: tuple[Path, Path]) -> None:
    said = console(boot, "dies")
    assert last_alive_s(said) <= over_s(said)


def test_the_driver_resets_it_as_soon_when_another_guard_was_started_too_late(boot: tuple[Path, Path]) -> None:
    said = console(boot, "late")
    assert "watchdog=2s:not_fed_yet" in said
    assert last_alive_s(said) <= over_s(said)
