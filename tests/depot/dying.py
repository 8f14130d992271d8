"""A program that does something to a depot again and again, and each time is killed one step later than the last.

A step is a call of the system that changes what is on the disk, or starts a program. After each death another process
looks: what must be there has to be there whole, the next try has to succeed, and has to leave just what one leaves that
was never killed. A kill loses nothing that was written, and a power cut does: so it also looks once that nothing gets
its name before it is synced. Run as `python dying.py SCENE FOLDER`; prints how many deaths it died.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from outlive.cluster.package import Manifest
from outlive.depot.install import Installations
from outlive.depot.installed import MARK
from outlive.depot.package import package_id
from outlive.depot.shelf import Shelf

STEPS = ("open", "mkdir", "write", "fsync", "fchmod", "chmod", "rename", "unlink", "rmdir", "ftruncate", "close")
MADE = b"made by the install command\n"
SETUP = b"#!/bin/sh\nprintf 'made by ' >made\nprintf 'the install command\\n' >>made\n"
CONTENTS = {"bin/setup": SETUP, "etc/noise": bytes(range(256)) * 3}
"""What all versions have; a text of its own that can be packed, and a short one that cannot, come to it."""


class World:
    """A host with an old version installed, and another host with a new one on its shelf."""

    def __init__(self, folder: Path) -> None:
        self.origin = Shelf(folder / "origin")
        self.shelf = Shelf(folder / "depot")
        self.installations = Installations(folder / "packages", self.shelf)
        self.folder = folder

    def package(self, version: str) -> Manifest:
        source = self.folder / version
        for path, content in {
            **CONTENTS,
            "etc/version": version.encode(),
            "etc/large": f"{version}\n".encode() * 2000,
        }.items():
            file = source / "files" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            file.chmod(0o755 if path.startswith("bin/") else 0o644)
        text = f'name = "web"\nversion = "{version}"\n[install]\ncommand = ["bin/setup"]\n'
        (source / "package.toml").write_text(text)
        return self.origin.build(source)

    def bring(self, manifest: Manifest) -> None:
        with self.shelf.receive(manifest) as reception:
            for component in reception.missing():
                with reception.receive(component) as incoming:
                    for piece in self.origin.components.read(component, incoming.offset):
                        for begin in range(0, len(piece), 5000):
                            incoming.append(piece[begin : begin + 5000])
                    incoming.finish()
            reception.finish()

    def check(self, *whole: Manifest) -> None:
        """What is there is whole, and these are there."""
        for id in self.shelf.ids():
            assert self.shelf.verify(id) is None
        for path in (self.shelf.folder / "components").rglob("*"):
            if path.is_file():
                digest = path.name.partition(".")[0]
                known = {one.digest: one for id in self.origin.ids() for one in self.origin.manifest(id).components}
                assert self.shelf.components.verify(known[digest])
        for installed in self.installations.all():
            assert self.installations.verify(installed) == ()
            assert (installed.files / "made").read_bytes() == MADE
        assert {one.version for one in whole} <= {one.manifest.version for one in self.installations.all()}

    def content(self) -> dict[str, bytes]:
        """Every file of the host, after having cleared away what may lie about for a while."""
        ages_ago = time.time() - 7200
        for path in self.shelf.folder.rglob("*"):
            os.utime(path, (ages_ago, ages_ago))
        self.shelf.collect()
        files = [path for top in (self.shelf.folder, self.installations.folder) for path in top.rglob("*")]
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in files
            if path.is_file() and not path.name.endswith((".lock", ".leash"))
        }


def dies_at(step: int, act: Callable[[], object]) -> bool:
    """Do something in a process that is killed before this step; whether it was."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            arm(step)
            act()
            status = 0
        finally:
            os._exit(status)
    _, wait_status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(wait_status):
        assert os.WTERMSIG(wait_status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(wait_status) == 0
    return False


def arm(step: int) -> None:
    """Count steps from now on, and die before this one."""
    numbers = count(1)

    def armed(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            if next(numbers) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)

        return counted

    for name in STEPS:
        setattr(os, name, armed(getattr(os, name)))
    subprocess.Popen = armed(subprocess.Popen)  # type: ignore[assignment,misc]


def watch_syncs() -> None:
    """From now on, fail where a file gets its name, or an installation its mark, before all of it was synced."""
    synced: set[tuple[int, int]] = set()
    opened, write, fsync, rename = os.open, os.write, os.fsync, os.rename

    def identity(seen: os.stat_result) -> tuple[int, int]:
        return seen.st_dev, seen.st_ino

    def made(path: Path, flags: int, mode: int = 0o777, **named: Any) -> int:
        fd = opened(path, flags, mode, **named)
        if flags & os.O_EXCL:
            synced.discard(identity(os.fstat(fd)))
        return fd

    def written(fd: int, raw: bytes) -> int:
        synced.discard(identity(os.fstat(fd)))
        return write(fd, raw)

    def waited_for(fd: int) -> None:
        fsync(fd)
        synced.add(identity(os.fstat(fd)))

    def named(source: Path, target: Path) -> None:
        whole = [source, *(target.parent.rglob("*") if target.name == MARK else [])]
        late = [path for path in whole if path.is_file() and identity(path.stat()) not in synced]
        assert late == [], late
        rename(source, target)

    os.open, os.write, os.fsync, os.rename = made, written, waited_for, named  # type: ignore[assignment]


def is_synced(act: Callable[[], object]) -> bool:
    """Whether everything that this does is durable before it counts."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            watch_syncs()
            act()
            status = 0
        finally:
            if status:
                traceback.print_exc()
            os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


def deaths(folder: Path, prepare: Callable[[World], None], act: Callable[[World], None], after: list[Manifest]) -> int:
    """Let it die at every step, each time in a new world. after: what is installed all the time."""
    prepared = World(folder / "prepared")
    shutil.copytree(folder / "origin", prepared.origin.folder)
    prepare(prepared)
    world = copied(prepared, folder / "never-killed")
    assert is_synced(lambda: act(world))
    world.check(*after)
    expected = world.content()
    for step in count(1):
        world = copied(prepared, folder / "killed")
        died = dies_at(step, lambda: act(world))  # noqa: B023 – it is called at once
        world.check(*after)
        act(world)
        world.check(*after)
        assert world.content() == expected, f"step {step}"
        shutil.rmtree(world.folder)
        if not died:
            return step - 1
    raise AssertionError


def copied(world: World, folder: Path) -> World:
    shutil.copytree(world.folder, folder)
    return World(folder)


def main() -> None:
    scene, folder = sys.argv[1], Path(sys.argv[2])
    maker = World(folder)
    old, new = maker.package("1.0.0"), maker.package("1.1.0")

    def with_old(world: World) -> None:
        world.bring(old)
        world.installations.install(package_id(old))

    def with_both(world: World) -> None:
        with_old(world)
        world.bring(new)

    def install(world: World) -> None:
        world.installations.install(package_id(new))

    def with_both_installed(world: World) -> None:
        with_both(world)
        install(world)

    def uninstall(world: World) -> None:
        kept = [one for one in world.installations.all() if one.id == package_id(old)]
        world.installations.uninstall_unused(lambda: kept)

    def take_away(world: World) -> None:
        world.shelf.remove(package_id(new))
        world.shelf.collect(young_s=0.0)

    scenes: dict[str, tuple[Callable[[World], None], Callable[[World], None]]] = {
        "bring": (with_old, lambda world: world.bring(new)),
        "install": (with_both, install),
        "uninstall": (with_both_installed, uninstall),
        "take-away": (with_both, take_away),
    }
    prepare, act = scenes[scene]
    print(deaths(folder, prepare, act, [old]))


if __name__ == "__main__":
    main()
