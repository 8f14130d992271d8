"""`python -m tests.fuzz SECONDS [TARGET…]`: search with each target for so long, one after the other.

Each search is a process of its own, since what is looked for may end it. Prints one line a target, and what was found;
ends with 1 when anything was. `outlive test --fuzz` runs this.
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from . import native, running

ROOT = Path(__file__).parents[2]
GRACE_S = 120.0
"""How much longer than it should a search may take, most of which is to begin."""
_TRIED = re.compile(r"stat::number_of_executed_units:\s*(\d+)|^tried (\d+)", re.MULTILINE)


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("seconds", type=float)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one", action="store_true", help="search here, with one target")
    parser.add_argument("--junitxml", type=Path, help="where to tell how many targets held, as pytest does")
    asked = parser.parse_args(words)
    seed = asked.seed or time.time_ns() % 2**31
    if asked.one:
        return one(asked.targets[0], asked.seconds, seed)
    names = asked.targets or names_of_all()
    if unknown := set(names) - set(names_of_all()):
        parser.error(f"there is no target {min(unknown)}; the targets are {', '.join(names_of_all())}")
    print(f"seed {seed}, {'guided by atheris' if has_atheris() else 'by chance alone, since atheris is not here'}")
    held = [search(name, asked.seconds, seed) for name in names]
    if asked.junitxml:
        counts = f'tests="{len(held)}" failures="{held.count(False)}" errors="0" skipped="0"'
        asked.junitxml.write_text(f"<testsuites><testsuite {counts}/></testsuites>")
    return int(not all(held))


def names_of_all() -> list[str]:
    from .targets import TARGETS

    return [*TARGETS, *native.TARGETS]


def has_atheris() -> bool:
    return importlib.util.find_spec("atheris") is not None


def search(name: str, seconds: float, seed: int) -> bool:
    """Search with one target, and tell how that went; false when something was found."""
    folder = folder_of(name)
    before = set(folder.glob("*-*"))
    command = [sys.executable, "-m", "tests.fuzz", "--one", "--seed", str(seed), str(seconds), name]
    # Files that parsers read are made anew for each input: in memory, where there is any to be had so.
    quick = {"TMPDIR": "/dev/shm"} if os.access("/dev/shm", os.W_OK) else {}
    try:
        ended = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds + GRACE_S,
            env={**os.environ, **quick},
        )
        told, holds = ended.stdout + ended.stderr, ended.returncode == 0
    except subprocess.TimeoutExpired as error:
        told, holds = f"{error.stderr!r}"[-4000:], False
    tried = sum(int(found[1] or found[2]) for found in _TRIED.finditer(told))
    new = sorted(path.relative_to(ROOT) for path in set(folder.glob("*-*")) - before)
    print(
        f"{name:22} {tried:>10} inputs  {'nothing found' if holds else 'FOUND ' + ' '.join(map(str, new))}", flush=True
    )
    if not holds:
        print(told[-6000:], flush=True)
    return holds


def folder_of(name: str) -> Path:
    folder = ROOT / ".setup" / "fuzz" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def one(name: str, seconds: float, seed: int) -> int:
    folder = folder_of(name)
    if name in native.TARGETS:
        return native.search(name, folder, seconds, seed)
    if has_atheris():
        running.guided(name, folder, seconds, seed)  # does not return
    from .targets import TARGETS

    print(f"tried {running.by_chance(TARGETS[name], folder, seconds, seed)}")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONFAULTHANDLER", "1")
    sys.exit(main(sys.argv[1:]))
