"""A guest under a real emulator, alone in a namespace with its clients; gone afterwards whatever the test does."""

import itertools
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ADDRESS, PREFIX, CLIENT = "10.77.0.150", 24, "10.77.0.1/24"
BOOT_S = 180.0
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Booted:
    """A guest that was switched on. folder: where its console (console.log) and its monitor's socket are."""

    namespace: str
    folder: Path
    emulator: subprocess.Popen[bytes]

    def console(self) -> str:
        path = self.folder / "console.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def press_power(self) -> None:
        with self._monitor() as monitor:
            monitor.sendall(b'{"execute": "system_powerdown"}\n')
            monitor.recv(4096)

    def until_event(self, name: str, timeout_s: float) -> dict[str, object]:
        """Wait for an event; those from before are not seen again, so ask first in another thread or cause it late."""
        with self._monitor() as monitor:
            monitor.settimeout(timeout_s)
            for line in monitor.makefile("rb"):
                told: dict[str, object] = json.loads(line)
                if told.get("event") == name:
                    return told
        raise AssertionError(f"the emulator ended without {name}")

    def _monitor(self) -> socket.socket:
        monitor = socket.socket(socket.AF_UNIX)
        monitor.settimeout(30)
        monitor.connect(str(self.folder / "monitor"))
        monitor.recv(4096)
        monitor.sendall(b'{"execute": "qmp_capabilities"}\n')
        monitor.recv(4096)
        return monitor


@contextmanager
def namespace() -> Iterator[str]:
    """A network namespace with the guest's tap, where its clients are."""
    name = f"ol-guest-{os.getpid()}-{next(_numbers)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for words in (
            "link set dev lo up",
            "tuntap add dev tap0 mode tap",
            f"addr add {CLIENT} dev tap0",
            "link set dev tap0 up",
        ):
            subprocess.run(["ip", "-n", name, *words.split()], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@contextmanager
def booted(folder: Path, kernel: Path, initrd: Path, append: str, disk: Path, *more: str) -> Iterator[Booted]:
    """Switch a guest on; it is switched off at the end."""
    with namespace() as name:
        words = (
            *("qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-nodefaults", "-display", "none"),
            *("-kernel", str(kernel), "-initrd", str(initrd), "-append", append),
            *("-serial", f"file:{folder}/console.log", "-qmp", f"unix:{folder}/monitor,server=on,wait=off"),
            *("-netdev", "tap,id=net0,ifname=tap0,script=no,downscript=no", "-device", "virtio-net-pci,netdev=net0"),
            *("-blockdev", f"driver=raw,node-name=disk0,file.driver=file,file.filename={disk}"),
            *("-device", "virtio-blk-pci,drive=disk0", *more),
        )
        emulator = subprocess.Popen(["nsenter", f"--net=/run/netns/{name}", "--", *words], stdin=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 30
            while not (folder / "monitor").exists():
                assert emulator.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield Booted(name, folder, emulator)
        finally:
            with emulator:
                emulator.kill()
