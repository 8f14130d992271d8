"""Where the programs around this package are: our native ones, and this command line itself.

The launcher and `pip install` both put the native programs beside the interpreter; a packager may put
them elsewhere on PATH. Those for guests are no commands and lie below the interpreter's `share`.
Nothing here starts anything.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Literal

from outlive.errors import Failed

Program = Literal["outlive-guard", "outlive-runner", "outlive-runlock"]
Library = Literal["liboutlive-pages.so", "liboutlive-heartbeats.so", "libpagewatch.so"]
GuestProgram = Literal["outlive-guest-server", "outlive-guest-clients"]
GUESTS = Path("outlive") / "guest"


def find(program: Program | Library) -> Path:
    """Return the path of one of our native programs or libraries.

    The folder that OUTLIVE_NATIVE_DIR names counts alone, where it is set (tests of a special build);
    else the folder of this interpreter, then PATH.

    Raises Failed (id `native.missing`) when it is nowhere: the installation is not whole.
    """
    special = os.environ.get("OUTLIVE_NATIVE_DIR")
    beside = Path(special) if special else Path(sys.executable).parent
    if _is_program(beside / program):
        return beside / program
    if not special and (elsewhere := shutil.which(program)):
        return Path(elsewhere)
    raise _missing(program, f"it is neither in {beside} nor on PATH" if not special else f"it is not in {beside}")


def find_guest_program(program: GuestProgram) -> Path:
    """Return the path of a program that runs in a lab's guests or asks them something.

    Raises Failed (id `native.missing`) as `find` does, and heeds OUTLIVE_NATIVE_DIR as it does.
    """
    special = os.environ.get("OUTLIVE_NATIVE_DIR")
    # A wheel's data lands in the environment's own folder, where `meson install` would put it below `share`.
    prefix = Path(sys.prefix)
    folders = (Path(special) / "guest",) if special else (prefix / "share" / GUESTS, prefix / GUESTS)
    for folder in folders:
        if _is_program(folder / program):
            return folder / program
    raise _missing(program, f"it is not in {' or '.join(map(str, folders))}")


def outlive_command(*words: str) -> tuple[str, ...]:
    """Return the command that runs this same Outlive with other words, from any folder.

    -P keeps the current folder off the module path, as the launcher does.
    """
    return (sys.executable, "-P", "-m", "outlive", *words)


def _missing(program: str, cause: str) -> Failed:
    return Failed(
        f"{program}, a part of Outlive, is missing.",
        cause=cause,
        remedy="in a checkout run ./outlive --version, which builds it; else install Outlive again",
        id="native.missing",
    )


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
