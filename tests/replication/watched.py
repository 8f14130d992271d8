"""A process with a guest's RAM that is told which pages to write: what QEMU is to the trackers, without a guest."""

import os
import subprocess
import sys
from pathlib import Path

from outlive.replication.library import pagewatch_path
from outlive.replication.memory import PAGE_BYTES, Memory
from outlive.replication.tracking import Region, read_pagewatch

PROGRAM = """
import mmap, os, sys
pages, size = int(sys.argv[1]), int(sys.argv[1]) * 4096
fd = os.memfd_create("guest")
os.ftruncate(fd, size)
private = mmap.mmap(-1, size)
ram = mmap.mmap(fd, size)
print(fd, "OUTLIVE_PAGEWATCH_TO" in os.environ, flush=True)
for line in sys.stdin:
    for word in line.split():
        page, value = map(int, word.split("="))
        ram[page * 4096 + 100] = value
    print("done", flush=True)
"""


class Watched:
    """The process, with the page watch preloaded unless told otherwise; `close` ends it."""

    def __init__(self, folder: Path, pages: int, *, preload: bool = True, least_bytes: str = "") -> None:
        self.pages = pages
        self.told = folder / "pagewatch"
        environment = {**os.environ}
        if preload:
            environment["LD_PRELOAD"] = str(pagewatch_path())
            environment["OUTLIVE_PAGEWATCH_BYTES"] = least_bytes or str(pages * PAGE_BYTES)
            environment["OUTLIVE_PAGEWATCH_TO"] = str(self.told)
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", PROGRAM, str(pages)],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        fd, self.sees_variables = self.process.stdout.readline().split()
        self.ram = Path(f"/proc/{self.process.pid}/fd/{fd}")

    def memory(self) -> Memory:
        return Memory.map_file(self.ram, self.pages * PAGE_BYTES, writable=False)

    def region(self) -> Region:
        region = read_pagewatch(self.told, self.pages * PAGE_BYTES)
        assert region is not None
        return region

    def write(self, pages: dict[int, int]) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(" ".join(f"{page}={value}" for page, value in pages.items()) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
