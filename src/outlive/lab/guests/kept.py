"""A folder of things that took long to make: each made once, by one maker at a time, and there whole or not at all.

A maker works in a scratch folder beside the place and renames it there at its end; what a killed one left behind is
removed by the next. What is made and when it is out of date is for others to know: a changed thing has another name.
"""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import outlive
from outlive.errors import Failed

INSTALLED = Path("/var/cache/outlive/guests")
MAKING_S = 3600.0
_POLL_S = 0.2


class GuestNotMade(Failed):
    """A guest could not be made on this machine."""

    id = "guest.not-made"


def guests_folder() -> Path:
    """Where guests are kept: beside a checkout's other set-up, or in the system's cache for an installed copy."""
    root = Path(outlive.__file__).resolve().parents[2]
    return root / ".setup" / "guests" if (root / "pyproject.toml").is_file() else INSTALLED


def kept(cache: Path, name: str, make: Callable[[Path], None], say: Callable[[str], None]) -> Path:
    """Return `cache`/`name`, a folder that `make` fills if it is not there yet.

    make: is given an empty scratch folder; if it raises, nothing is kept.
    say:  is told when another maker has to be waited for.
    Raises GuestNotMade when the folder cannot be written, or the other maker takes longer than MAKING_S seconds.
    """
    place = cache / name
    if place.is_dir():
        return place
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _alone(cache / f"{name}.lock", say):
            if place.is_dir():
                return place
            for leftover in cache.glob(f"{name}.new-*"):
                shutil.rmtree(leftover)
            scratch = Path(tempfile.mkdtemp(dir=cache, prefix=f"{name}.new-"))
            try:
                make(scratch)
                # An emulator that runs as a user of its own reads what is in here.
                scratch.chmod(0o755)
                _sync(scratch)
                scratch.rename(place)
            except BaseException:
                shutil.rmtree(scratch, ignore_errors=True)
                raise
            _forget_old(place)
    except OSError as error:
        raise GuestNotMade(
            f"A guest cannot be kept in {cache}.", cause=str(error), remedy="make room there, and run as its owner"
        ) from error
    return place


def _sync(folder: Path) -> None:
    """Have all of a folder on disk before it gets its name; of this folder alone, as other disks may hang."""
    for path in (*folder.rglob("*"), folder):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _forget_old(place: Path) -> None:
    """Remove what of the same kind was out of date already, but for the last, which somebody may still be reading."""
    kind = place.name.rpartition("-")[0]
    alike = (path for path in place.parent.glob(f"{kind}-*") if path.is_dir() and ".new-" not in path.name)
    others = sorted((path for path in alike if path != place), key=lambda path: path.stat().st_mtime) if kind else []
    for path in others[:-1]:
        shutil.rmtree(path, ignore_errors=True)
        (path.parent / f"{path.name}.lock").unlink(missing_ok=True)


@contextmanager
def _alone(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock that the kernel takes back should we die."""
    with path.open("ab") as lock:
        deadline = time.monotonic() + MAKING_S
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise GuestNotMade(
                        f"Another process has been making {path.stem} for {MAKING_S:.0f} s.",
                        cause=f"it holds {path}",
                        remedy="end it if it hangs, then try again",
                    ) from None
                if not told:
                    say(f"another process is making {path.stem}; waiting for it")
                    told = True
                time.sleep(_POLL_S)
        yield
