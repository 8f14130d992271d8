"""Many processes at one depot, killed at any moment: nothing is ever half there, and nothing is ever lost."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from outlive.depot.install import Installations
from outlive.depot.shelf import Shelf

from .package_scene import memory_at, on_shelf

PROCESSES = 4
FOR_S = 30.0


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_processes_that_are_killed_leave_nothing_half(tmp_path: Path) -> None:
    chance = random.Random(f"{time.time_ns()}")
    shared = os.urandom(30_000)
    with memory_at(tmp_path / "memory", 256 << 20) as folder:
        origin, shelf = Shelf(folder / "origin"), Shelf(folder / "depot")
        installations = Installations(folder / "packages", shelf)
        ids = [
            on_shelf(
                origin,
                version=f"1.{number}.0",
                files={
                    "shared": shared,
                    "text": b"%d\n" % number * 5000,
                    "bin/setup": b"#!/bin/sh\nsleep 0.02; : >x\n",
                },
                more='[install]\ncommand = ["bin/setup"]',
            )
            for number in range(3)
        ]
        processes = [restless(folder, chance) for _ in range(PROCESSES)]
        until = time.monotonic() + FOR_S
        while time.monotonic() < until:
            time.sleep(chance.random() * 0.4)
            number = chance.randrange(PROCESSES)
            processes[number].kill()
            _, told = processes[number].communicate()
            assert told == ""
            for installed in installations.all():
                assert (installed.files / "x").exists() or installed not in installations.all()
            processes[number] = restless(folder, chance)
        for process in processes:
            process.kill()
            _, told = process.communicate()
            assert told == ""
        assert all(shelf.verify(id) is None for id in shelf.ids())
        assert all(installations.verify(installed) == () for installed in installations.all())
        for id in ids:
            shelf.remove(id)
        installations.uninstall_unused(lambda: [])
        assert installations.all() == ()


def restless(folder: Path, chance: random.Random) -> "subprocess.Popen[str]":
    program = Path(__file__).with_name("restless.py")
    words = [sys.executable, str(program), str(folder), str(chance.random())]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
