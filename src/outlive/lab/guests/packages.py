"""Debian packages taken apart in a folder of ours: the cloud kernel, its modules and busybox, never installed.

They come from where apt on this machine is set up to get them, and apt checks their signatures. Where apt's own
lists are missing or too old, lists are fetched into a scratch folder; the machine's are left alone.
"""

import contextlib
import hashlib
import lzma
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .kept import GuestNotMade, kept

METAPACKAGE, BUSYBOX = "linux-image-cloud-amd64", "busybox-static"
COMMAND_S = 900.0
_DEPENDENCY = re.compile(r"^\s*Depends:\s*(linux-image-[0-9]\S*)", re.MULTILINE)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TARGET = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
_MODULE_NEEDS = re.compile(rb"\0depends=([^\0]*)\0")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel to boot. modules: in an order in which each finds what it needs loaded already."""

    image: Path
    busybox: Path
    modules: tuple[Path, ...]


def cloud_kernel(cache: Path, modules: Sequence[str], say: Callable[[str], None]) -> Kernel:
    """Return the kept cloud kernel with these modules and whatever they need, downloaded first if there is none.

    Raises GuestNotMade when it cannot be had.
    """

    def make(scratch: Path) -> None:
        work = scratch / "work"
        work.mkdir()
        for package in download_kernel(work, say):
            run(["dpkg-deb", "-x", str(package), "taken-apart"], work)
        _pick(work / "taken-apart", modules, scratch)
        shutil.rmtree(work)

    name = f"kernel-{hashlib.sha256(repr(modules).encode()).hexdigest()[:16]}"
    place = kept(cache, name, make, say)
    (image,) = place.glob("vmlinuz-*")
    return Kernel(image, place / "busybox", tuple(in_order(modules, place / "modules")))


def _pick(apart: Path, modules: Sequence[str], to: Path) -> None:
    """Move what guests need, a dozen of a hundred megabytes, to where it is kept."""
    for packed in apart.rglob("*.ko.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
    (to / "modules").mkdir()
    for module in list(in_order(modules, apart)):
        module.rename(to / "modules" / module.name)
    (image,) = apart.rglob("vmlinuz-*")
    image.rename(to / image.name)
    (busybox,) = (path for path in apart.rglob("bin/busybox") if path.is_file())
    busybox.rename(to / "busybox")


def download_kernel(work: Path, say: Callable[[str], None]) -> list[Path]:
    """Download the packages into `work`, a folder for this alone. Raises GuestNotMade."""
    return _with_lists(work, say, lambda options: _download(work, options, say))


def debian_sources(work: Path, say: Callable[[str], None]) -> tuple[str, list[str]]:
    """The suite, and the lines of sources, that apt on this machine gets Debian itself from. Raises GuestNotMade."""
    return _with_lists(work, say, lambda options: _sources(work, options))


def _with_lists(work: Path, say: Callable[[str], None], attempt: Callable[[Sequence[str]], _T]) -> _T:
    """Try something with this machine's lists of packages and, if those do not do, with fresh ones in `work`."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise GuestNotMade(
            "Guests are made from Debian packages, and this machine has no apt-get.",
            remedy="use a Debian machine, or copy its folder of kept guests here",
        )
    try:
        return attempt([])
    except GuestNotMade:
        say("apt's lists of packages do not do; fetching fresh ones, for this alone")
    own = [f"-oDir::State::Lists={work}/lists", f"-oDir::Cache={work}/cache"]
    for folder in ("lists/partial", "cache/archives/partial"):
        (work / folder).mkdir(parents=True)
    # One of several sources may be away without harm; where it does harm, the attempt itself fails.
    with contextlib.suppress(GuestNotMade):
        run(["apt-get", "-q", *own, "update"], work)
    return attempt(own)


def _download(work: Path, options: Sequence[str], say: Callable[[str], None]) -> list[Path]:
    told = run(["apt-cache", *options, "depends", METAPACKAGE], work)
    found = _DEPENDENCY.search(told)
    if found is None:
        raise GuestNotMade(
            f"The package {METAPACKAGE} names no kernel.",
            cause=told.strip()[-500:],
            remedy="see `apt-cache depends linux-image-cloud-amd64`",
        )
    say(f"downloading {found[1]} and {BUSYBOX} (some 30 MB)")
    run(["apt-get", "-q", *options, "download", found[1], BUSYBOX], work)
    return sorted(work.glob("*.deb"))


def _sources(work: Path, options: Sequence[str]) -> tuple[str, list[str]]:
    told = run(
        ["apt-get", *options, "indextargets", "--format", _TARGET, "Created-By: Packages", "Origin: Debian"], work
    )
    components: dict[tuple[str, str], list[str]] = {}
    for line in told.splitlines():
        repository, release, component = line.split("|")
        components.setdefault((repository, release), []).append(component)
    lines = [f"deb {repository} {release} {' '.join(each)}" for (repository, release), each in components.items()]
    # The others, such as bookworm-updates, are named after the one.
    suites = sorted((release for _, release in components), key=len)
    if not suites:
        raise GuestNotMade(
            "apt on this machine has no lists of Debian's packages.",
            cause="no source that apt has lists of is Debian itself",
            remedy="run `apt-get update`, and see that the sources are Debian's",
        )
    return suites[0], lines


def in_order(names: Sequence[str], folder: Path) -> Iterator[Path]:
    """Find modules below `folder` and yield them after what they need; one that does not exist is left out."""
    there = {path.stem.replace("-", "_"): path for path in folder.rglob("*.ko")}
    done: set[str] = set()

    def visit(name: str) -> Iterator[Path]:
        if name in done or name not in there:
            return
        done.add(name)
        found = _MODULE_NEEDS.search(there[name].read_bytes())
        for need in found[1].decode().split(",") if found else []:
            yield from visit(need.replace("-", "_"))
        yield there[name]

    for name in names:
        yield from visit(name)


def run(words: Sequence[str], work: Path, *, timeout_s: float = COMMAND_S) -> str:
    """Run a command of Debian's in a folder and return what it prints. Raises GuestNotMade with its complaint."""
    try:
        done = subprocess.run(
            words,
            cwd=work,
            env={**os.environ, "PATH": _PATH, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GuestNotMade(f"`{words[0]}` did not run to its end.", cause=str(error)) from error
    if done.returncode:
        raise GuestNotMade(
            f"`{' '.join(words)}` failed.",
            cause=done.stderr.strip()[-1000:],
            remedy="see that `apt-get update` works here (network, proxy, sources of Debian), then try again",
        )
    return done.stdout
