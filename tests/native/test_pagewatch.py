"""The preloaded page watch tells where a program's RAM is, breaks no program, and works under QEMU's sandbox."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from outlive.native import find

MIB = 1 << 20

MAPS = """
import mmap, os, sys
for size in (1, 3, 8):
    fd = os.memfd_create("m"); os.ftruncate(fd, size << 20)
    mapped = mmap.mmap(fd, size << 20); mapped[:5] = b"hello"
    mmap.mmap(fd, size << 20, flags=mmap.MAP_PRIVATE); mmap.mmap(fd, size << 20, prot=mmap.PROT_READ)
    globals()[f"kept{size}"] = mapped
mmap.mmap(-1, 9 << 20)
print(*[line for line in open("/proc/self/maps") if "memfd:m" in line], sep="")
print(os.environ.get("OUTLIVE_PAGEWATCH_BYTES"), os.environ.get("OUTLIVE_PAGEWATCH_TO"))
"""

# A filter of system calls that answers EPERM to this one, as a container's often does.
NO_USERFAULTFD = """
import ctypes, platform, struct
number = {"x86_64": 323, "aarch64": 282}[platform.machine()]
code = b"".join(struct.pack("HBBI", *step) for step in (
    (0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)))
room = ctypes.create_string_buffer(code, len(code))
filtered = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(room)), 16)
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, filtered) == 0
"""


def run(program: str, **variables: str) -> str:
    environment = {**os.environ, "LD_PRELOAD": str(find("libpagewatch.so")), **variables}
    return subprocess.run(
        [sys.executable, "-I", "-c", program], env=environment, check=True, capture_output=True, text=True, timeout=60
    ).stdout


def test_shared_writable_mappings_from_the_given_size_on_are_told(tmp_path: Path) -> None:
    told = tmp_path / "told"
    output = run(MAPS, OUTLIVE_PAGEWATCH_BYTES=str(3 * MIB), OUTLIVE_PAGEWATCH_TO=str(told))
    lines = told.read_text().splitlines()
    assert [int(line.split()[1], 16) for line in lines] == [3 * MIB, 8 * MIB]
    mapped = {line.split("-")[0] for line in output.splitlines() if "rw-s" in line}
    assert {line.split()[0] for line in lines} <= {start.lstrip("0") for start in mapped}
    assert list(tmp_path.iterdir()) == [told]


def test_children_watch_nothing(tmp_path: Path) -> None:
    output = run(MAPS, OUTLIVE_PAGEWATCH_BYTES=str(3 * MIB), OUTLIVE_PAGEWATCH_TO=str(tmp_path / "told"))
    assert output.splitlines()[-1] == "None None"


def test_without_or_with_nonsense_in_its_variables_it_does_nothing(tmp_path: Path) -> None:
    told = tmp_path / "told"
    for size in ("", "0", "-1", "x", "1x", "9" * 30):
        run(MAPS, OUTLIVE_PAGEWATCH_BYTES=size, OUTLIVE_PAGEWATCH_TO=str(told))
    run(MAPS, OUTLIVE_PAGEWATCH_BYTES=str(MIB))
    run(MAPS, OUTLIVE_PAGEWATCH_BYTES=str(MIB), OUTLIVE_PAGEWATCH_TO="/" + "x" * 5000)
    run(MAPS)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_breaks_nothing() -> None:
    run(MAPS, OUTLIVE_PAGEWATCH_BYTES=str(MIB), OUTLIVE_PAGEWATCH_TO="/nowhere/at/all")


def test_a_kernel_that_refuses_is_told_and_the_program_goes_on(tmp_path: Path) -> None:
    told = tmp_path / "told"
    output = run(NO_USERFAULTFD + MAPS, OUTLIVE_PAGEWATCH_BYTES=str(MIB), OUTLIVE_PAGEWATCH_TO=str(told))
    assert output.splitlines()[-1] == "None None"
    assert told.read_text() == "failed: userfaultfd: Operation not permitted\n"


def test_qemu_in_its_sandbox_is_watched(tmp_path: Path) -> None:
    qemu = shutil.which("qemu-system-x86_64")
    assert qemu
    told, size = tmp_path / "told", 64 * MIB
    process = subprocess.Popen(
        [
            qemu, "-M", "pc,memory-backend=ram0", "-accel", "tcg", "-m", "64", "-nodefaults", "-display", "none", "-S",
            "-object", f"memory-backend-memfd,id=ram0,size={size},share=on", "-qmp", "stdio",
            "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        ],
        env={
            **os.environ,
            "LD_PRELOAD": str(find("libpagewatch.so")),
            "OUTLIVE_PAGEWATCH_BYTES": str(size),
            "OUTLIVE_PAGEWATCH_TO": str(told),
        },
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not told.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        assert told.exists(), process.stdout.read() if process.stdout and process.poll() is not None else "not told"
        start, mapped = told.read_text().split()
        assert int(mapped, 16) == size
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        assert re.search(rf"^0*{start}-\w+ rw-s .*memfd:", maps, re.MULTILINE)
    finally:
        process.kill()
        process.communicate()
