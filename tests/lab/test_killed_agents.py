"""Agents killed at any moment of pushing, fetching, installing, rolling out: what was acknowledged is there, whole."""

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from outlive.client import Client
from outlive.depot.install import Installations
from outlive.depot.shelf import Shelf
from outlive.errors import OutliveError
from outlive.lab import ready
from outlive.lab.lab import Lab

from ..depot.package_scene import files_in
from .looks import agent_pids
from .shared import SharedLab
from .test_packages import package

FOR_S = 120.0
SOON_S = 120.0
COPIES = 2
SHARED = os.urandom(2 << 20)
"""What all versions have, beside some that is their own; enough for deaths in the middle of it."""

REST = """
[install]
command = ["bin/setup"]

[start]
command = ["bin/serve"]
"""
FILE = """
name = "restless"
package = "restless@^1"

[upgrade]
healthy_within_s = 60
watch_s = 0.5

[module.main]
"""


class Cluster:
    """What an operator does to the cluster, and what was acknowledged of it."""

    def __init__(self, lab: Lab, folder: Path, chance: random.Random) -> None:
        self.lab = lab
        self.pushed: list[str] = []
        self.removed: set[str] = set()
        self.deaths = 0
        self._folder = folder
        self._chance = chance
        self._number = 0

    def client(self) -> Client:
        """Any agent, and the others when it dies."""
        sockets = [str(self.lab.plan.api(host)) for host in self.lab.on()]
        self._chance.shuffle(sockets)
        return Client(sockets[0], sockets)

    def push(self) -> None:
        """Push a new version, again until it is acknowledged."""
        self._number += 1
        files = {f"data_{number}": os.urandom(30_000).hex() for number in range(4)}
        setup = "#!/bin/sh -e\nsleep 0.2\nprintf made > made\n"
        serve = "#!/bin/sh\ntest -e made && exec sleep 100000\n"
        archive = package(
            self._folder, "restless", f"1.{self._number}.0", REST, bin_setup=setup, bin_serve=serve,
            shared=SHARED.hex(), **files,
        )  # fmt: skip
        deadline = time.monotonic() + SOON_S
        while True:
            client = self.client()
            try:
                answer = client.upload(f"/v1/packages?copies={COPIES}", [archive])
                self.pushed.append(f"restless@{answer['package']['version']}")
                return
            except OutliveError:
                assert time.monotonic() < deadline, "no agent takes a package"
                time.sleep(0.1)

    def upgrade(self) -> None:
        """Bring the workload to the newest version; an agent may be gone, and a rollout under way."""
        with suppress(OutliveError):
            self.client().put("/v1/workloads/restless?upgrade=1&retry_failed=1", FILE.encode())

    def remove_old(self) -> None:
        """Remove some version that nothing uses; from when that is asked on nobody relies on it."""
        if len(self.pushed) - len(self.removed) > 4:
            key = next(each for each in self.pushed if each not in self.removed)
            self.removed.add(key)
            with suppress(OutliveError):
                self.client().delete(f"/v1/packages/{key}")

    def settled(self) -> dict[str, Any]:
        """Wait until every version that is to be there has its copies, and the workload runs; the packages by name."""
        deadline = time.monotonic() + SOON_S
        while True:
            known = {
                f"{each['name']}@{each['version']}": each for each in self.client().pages("/v1/packages", "packages")
            }
            wanted = [key for key in self.pushed if key not in self.removed]
            record = self.client().get("/v1/workloads/restless")["record"]
            state = record["rollout"]["state"] if record["rollout"] else "done"
            if all(key in known and len(known[key]["held_by"]) >= COPIES for key in wanted) and state in (
                "done",
                "back",
                "halted",
            ):
                return known
            assert time.monotonic() < deadline, (wanted, known, state)
            time.sleep(0.2)


@contextmanager
def killing(cluster: Cluster, chance: random.Random) -> Iterator[None]:
    """Agents die, one after the other, at moments that nobody chose."""
    done = threading.Event()

    def kill() -> None:
        while not done.wait(chance.uniform(0.2, 3.0)):
            for pid in agent_pids(cluster.lab, chance.choice(cluster.lab.on())):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    cluster.deaths += 1

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_agents_that_die_at_any_moment_lose_no_package_and_leave_nothing_half(
    patient: SharedLab, tmp_path: Path
) -> None:
    seed = time.time_ns()
    print(f"seed {seed}")
    chance = random.Random(seed)
    lab = patient.lab()
    ready.until_ready(lab, SOON_S)
    cluster = Cluster(lab, tmp_path, chance)
    cluster.push()
    ready.any_client(lab).put("/v1/workloads/restless", FILE.encode())
    ready.until_running(lab, "restless", SOON_S)
    with killing(cluster, chance):
        until = time.monotonic() + FOR_S
        while time.monotonic() < until:
            for act in (cluster.push, cluster.upgrade, cluster.remove_old):
                act()
                time.sleep(chance.uniform(0.0, 0.5))
    print(f"{cluster.deaths} deaths, {len(cluster.pushed)} versions, {len(cluster.removed)} removed")
    ready.until_ready(lab, SOON_S)
    known = cluster.settled()
    ready.until_running(lab, "restless", SOON_S)
    for host in lab.on():
        data = lab.plan.host_folder(host) / "data"
        shelf = Shelf(data / "depot")
        told = {each["id"] for each in known.values() if host in each["held_by"]}
        assert told <= shelf.ids(), host
        assert all(shelf.verify(id) is None for id in shelf.ids()), host
        installations = Installations(data / "packages", shelf)
        for installed in installations.all():
            assert installations.verify(installed) == ()
            assert (installed.files / "made").read_text() == "made"
        # What deaths left half done is what clearing away clears away.
        installations.uninstall_unused(installations.all, timeout_s=60)
        folders = {path.name for path in (data / "packages" / "restless").glob("[!.]*")}
        assert folders == {installed.key for installed in installations.all()}, host
        shelf.collect(young_s=0.0)
        needed = {one.digest for id in shelf.ids() for one in shelf.manifest(id).components}
        there = {Path(name).name.partition(".")[0] for name in files_in(shelf.folder / "components")}
        assert there == needed, host
