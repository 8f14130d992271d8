"""The targets in C: built with sanitizers, by clang with its libFuzzer where that is, else by the usual compiler with a
driver of ours (`c/driver.c`) that changes inputs by chance."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from .. import sanitized

HERE = Path(__file__).parent
FOUND = HERE / "found"
MEASURED = 20_000
"""How many inputs are tried to see how quick a target is."""


@dataclass(frozen=True, slots=True)
class Native:
    """One target. source: its file below `c`.  beside: our C files that it is linked with.  seeds: valid inputs."""

    source: str
    beside: tuple[str, ...]
    seeds: Callable[[], Sequence[bytes]]
    words: tuple[str, ...] = ()


def _pages() -> Sequence[bytes]:
    from .of_machines import packed

    return [packed(False), packed(True)]


def _frames() -> Sequence[bytes]:
    from .of_machines import FRAMES

    return [FRAMES]


def _heartbeats() -> Sequence[bytes]:
    from .of_wire import datagrams

    first = datagrams()[0]
    again = first[:39] + b"\x09" + first[40:]
    return [len(first).to_bytes(2, "big") + first + again]


_GUARD = (
    b"STATUS", b"DEADLINE 5000000000 6000000000", b"PROTECT web 3 /outlive/web 10.0.0.9/24%eth0 fd00::7/64%br-lan",
    b"RELEASE web 3", b"FENCE web 3", b"WHOLE", b"QUIT",
)  # fmt: skip
_RECORD = b'{"generation":7,"owner":"web@a","boot_id":"c3f5b6a0-0000-4000-8000-0123456789ab"}'
TARGETS = {
    "c-pages": Native("pages.c", sanitized.PAGES[:5], _pages, ("-llz4",)),
    "c-frames": Native("frames.c", ("pages_memory", *sanitized.PAGES[5:]), _frames),
    "c-heartbeats": Native("heartbeats.c", sanitized.HEARTBEATS, _heartbeats, ("-lm",)),
    "c-guard": Native("guard.c", ("requests", "process", "address"), lambda: _GUARD),
    "c-runlock": Native("runlock.c", ("process", "cgroup"), lambda: [_RECORD]),
}


def clang() -> str | None:
    """A clang with libFuzzer, if this machine has one."""
    for name in ("clang", *(f"clang-{number}" for number in range(30, 13, -1))):
        if (found := shutil.which(name)) is not None and _links(found):
            return found
    return None


def _links(compiler: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "none.c"
        source.write_text("int LLVMFuzzerTestOneInput(const char *d, unsigned long s) { return d && s && 0; }\n")
        command = [compiler, "-fsanitize=fuzzer,address,undefined", str(source), "-o", f"{folder}/none"]
        return subprocess.run(command, capture_output=True, timeout=60).returncode == 0


def build(name: str, folder: Path, compiler: str | None = None) -> Path:
    """Build a target's program. compiler: a clang with libFuzzer; None: the usual one, with the driver."""
    target = TARGETS[name]
    sources = [HERE / "c" / target.source, *sanitized.native(target.beside)]
    if compiler is None:
        return sanitized.build(folder / name, [*sources, HERE / "c" / "driver.c"], *target.words)
    return sanitized.build(
        folder / name, sources, *target.words, sanitizers=f"fuzzer,{sanitized.MEMORY}", compiler=compiler
    )


def seeds(name: str, folder: Path) -> list[str]:
    """Files with the target's valid inputs, and with what was once found."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [path.read_bytes() for path in sorted((FOUND / name).glob("*"))]
    files = [(folder / sha256(data).hexdigest()[:16], data) for data in (*TARGETS[name].seeds(), *found)]
    for path, data in files:
        path.write_bytes(data)
    return [str(path) for path, _ in files]


def drive(program: Path, files: Sequence[str], count: int, seed: int, crash: Path) -> subprocess.CompletedProcess[str]:
    """Try so many changed inputs with the driver; `crash` is where one that a sanitizer ended is left."""
    command = [str(program), str(count), str(seed), str(crash), *files]
    return subprocess.run(command, env=sanitized.OPTIONS, capture_output=True, text=True, errors="replace")


def search(name: str, folder: Path, seconds: float, seed: int) -> int:
    """Search for so long; the exit code of what searched, which tells how many inputs it tried."""
    compiler = clang()
    program = build(name, folder, compiler)
    files = seeds(name, folder / "seeds")
    if compiler is None:
        return _by_chance(program, files, folder, seconds, seed)
    (folder / "corpus").mkdir(exist_ok=True)
    options = [
        f"-max_total_time={max(1, int(seconds))}", f"-seed={seed}", f"-artifact_prefix={folder}/", "-timeout=20",
        "-print_final_stats=1", "-max_len=100000", "-verbosity=0",
    ]  # fmt: skip
    return subprocess.run([program, *options, folder / "corpus", folder / "seeds"], env=sanitized.OPTIONS).returncode


def _by_chance(program: Path, files: Sequence[str], folder: Path, seconds: float, seed: int) -> int:
    until, tried = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        crash = folder / f"crash-{seed + tried}"
        ended = drive(program, files, MEASURED, seed + tried, crash)
        if ended.returncode != 0:
            sys.stderr.write(ended.stderr)
            return 1
        tried += MEASURED
    print(f"tried {tried}")
    return 0
