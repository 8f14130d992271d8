"""How long the page kernels take for an epoch, in milliseconds and as ratios to a plain copy of as many bytes.

    PYTHONPATH=src .venv/bin/python bench/pages.py [RAM_MIB]

A real process owns the RAM and has the page watch preloaded; it writes pages here and there, as a guest does. Only
the ratios say something on a machine that others use, too. `stands` marks what a guest stands still for.
"""

import ctypes
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from outlive.replication.kernels import Packer, Staging, apply, check, checksum
from outlive.replication.library import pagewatch_path
from outlive.replication.memory import PAGE_BYTES, Memory, Runs, nonzero
from outlive.replication.tracking import CompareTracker, WriteTracker, read_pagewatch

ROUNDS = 9

# Fills pages as told: "noise COUNT" whole with what does not compress, "text COUNT" whole with what does,
# "words COUNT" eight words of each.
OWNER = """
import mmap, os, random, sys
size = int(sys.argv[1])
fd = os.memfd_create("guest")
os.ftruncate(fd, size)
ram = mmap.mmap(fd, size)
noise = random.Random(1).randbytes(1 << 20)
print(fd, flush=True)
for turn, line in enumerate(sys.stdin):
    how, count = line.split()
    for page in random.Random(2).sample(range(size // 4096), int(count)):
        at = page * 4096
        if how == "noise":
            ram[at : at + 4096] = noise[(start := random.randrange(1 << 19)) : start + 4096]
        elif how == "text":
            ram[at : at + 4096] = (b"%d %d a line as programs keep them;" % (page, turn) * 200)[:4096]
        else:
            for word in range(8):
                ram[at + word * 500 : at + word * 500 + 8] = random.randbytes(8)
    print("done", flush=True)
"""


def median_ms(times: list[float]) -> float:
    return statistics.median(times) * 1e3


def timed(times: list[float], do: Callable[[], object]) -> None:
    began = time.perf_counter()
    do()
    times.append(time.perf_counter() - began)


def memcpy_ms(pages: int) -> float:
    """A plain copy between two warm pieces of memory."""
    source, target = Memory.allocate(pages * PAGE_BYTES), Memory.allocate(pages * PAGE_BYTES)
    source.view[:] = target.view[:] = b"x" * source.size_bytes
    times: list[float] = []
    for _ in range(ROUNDS):
        timed(times, lambda: ctypes.memmove(target.address, source.address, pages * PAGE_BYTES))
    return median_ms(times)


class Bench:
    """The owner of the RAM and what an epoch needs; `run` prints one row."""

    def __init__(self, owner: "subprocess.Popen[str]", tracker: WriteTracker, ram: Memory) -> None:
        self.owner, self.tracker, self.ram = owner, tracker, ram
        self.runs = Runs.for_pages(ram.pages)
        self.staging = Staging(ram.pages)
        self.standby = Memory.allocate(ram.size_bytes)

    def write(self, how: str, pages: int) -> None:
        assert self.owner.stdin is not None
        assert self.owner.stdout is not None
        self.owner.stdin.write(f"{how} {pages}\n")
        self.owner.stdin.flush()
        self.owner.stdout.readline()

    def run(self, how: str, pages: int, *, shadow: bool, compress: bool) -> None:
        packer = Packer(self.ram.pages, shadow_bytes=self.ram.size_bytes if shadow else 0, compress=compress)
        times: dict[str, list[float]] = {name: [] for name in ("scan", "copy_out", "encode", "check", "apply")}
        size = 0
        self.write(how, pages)
        for index in range(ROUNDS + 1):
            self.write(how, pages)
            kept = times if index else {name: [] for name in times}
            timed(kept["scan"], lambda: self.tracker.scan(self.runs))
            timed(kept["copy_out"], lambda: self.staging.copy_out(self.ram, self.runs))
            frames: list[memoryview] = []
            timed(kept["encode"], lambda frames=frames: frames.append(packer.encode(self.staging)))  # type: ignore[misc]
            (frame,) = frames
            accepted = check(frame, self.ram.pages)
            timed(kept["check"], lambda frame=frame: check(frame, self.ram.pages))  # type: ignore[misc]
            timed(kept["apply"], lambda accepted=accepted: apply(accepted, self.standby))  # type: ignore[misc]
            size = len(frame)
        base = memcpy_ms(pages)
        cells = [f"{median_ms(taken):8.2f} {median_ms(taken) / base:6.1f}x" for taken in times.values()]
        what = f"{how}{' lz4' if compress else ''}{' shadow' if shadow else ''}"
        print(
            f"{pages:>7} {what:<18} {base:8.2f} {' '.join(cells)} {100 * size / pages / PAGE_BYTES:7.1f} %", flush=True
        )


def main() -> None:
    size = int(sys.argv[1] if len(sys.argv) > 1 else 512) << 20
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "pagewatch"
        owner = subprocess.Popen(
            [sys.executable, "-I", "-c", OWNER, str(size)],
            env={
                **os.environ,
                "LD_PRELOAD": str(pagewatch_path()),
                "OUTLIVE_PAGEWATCH_BYTES": str(size),
                "OUTLIVE_PAGEWATCH_TO": str(told),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            measure(owner, told, size)
        finally:
            owner.kill()
            owner.wait()


def measure(owner: "subprocess.Popen[str]", told: Path, size: int) -> None:
    assert owner.stdout is not None
    ram = Memory.map_file(Path(f"/proc/{owner.pid}/fd/{owner.stdout.readline().strip()}"), size, writable=False)
    region = read_pagewatch(told, size)
    assert region is not None
    tracker = WriteTracker(owner.pid, region, ram)
    bench = Bench(owner, tracker, ram)
    print(f"RAM {size >> 20} MiB; each cell: ms, and times a plain copy of as many bytes; median of {ROUNDS}")
    print(f"{'pages':>7} {'written':<18} {'memcpy':>8} {'scan stands':>16} {'copy_out stands':>16}", end=" ")
    print(f"{'encode':>16} {'check':>16} {'apply':>16} {'packed':>9}")
    for pages in (1000, 10_000):
        bench.run("noise", pages, shadow=False, compress=False)
        bench.run("noise", pages, shadow=False, compress=True)
        bench.run("text", pages, shadow=False, compress=True)
        bench.run("words", pages, shadow=True, compress=False)
        bench.run("words", pages, shadow=True, compress=True)
    whole(bench)


def whole(bench: Bench) -> None:
    """What goes over all of RAM: looking for zeros, comparing, the checksum."""
    ram, times = bench.ram, [0.0] * 0
    base = memcpy_ms(ram.pages)
    into, every = Runs.for_pages(ram.pages), Runs.of([(0, ram.pages)])
    comparer = CompareTracker(ram)
    comparer.scan(into)
    print(f"all of RAM: memcpy {base:.1f} ms")
    for name, do in (
        ("nonzero", lambda: nonzero(ram, every, into)),
        ("compare", lambda: comparer.scan(into)),
        ("checksum", lambda: checksum(bench.standby.view)),
    ):
        times.clear()
        for _ in range(3):
            timed(times, do)
        print(f"  {name:<10} {median_ms(times):8.1f} ms {median_ms(times) / base:6.2f}x")


if __name__ == "__main__":
    main()
