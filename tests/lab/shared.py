"""One lab for all tests that can share it: put right between them, made anew after one that failed.

A test finds every host on, joined to all others and alive, and nothing to run but the machine that it asked for. What
a test broke is mended by what mends a real cluster: hosts are switched on again, links plugged in, workloads removed.
A lab that does not become whole again is a fault, told with the name of the test that left it so.
"""

import itertools
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from outlive.cluster.timing import Timing
from outlive.errors import OutliveError
from outlive.lab import hosts, machines, ready
from outlive.lab.guests.clients import Server
from outlive.lab.guests.tiny import tiny
from outlive.lab.lab import Lab
from outlive.lab.sentinel import owned_lab

from ..one_host import forget
from .looks import recorded

WHOLE_S = 60.0
MOST_PAIRINGS = 2
"""A machine that was followed anew more often is not kept: the cluster waits twice as long each time, as it should."""

_numbers = itertools.count()


class SharedLab:
    """A lab of three hosts in one site, there while tests that use it follow each other."""

    def __init__(self, timing: Timing | None = None) -> None:
        self._timing = timing
        self._stack = ExitStack()
        self._lab: Lab | None = None
        self._machine: machines.Wish | None = None
        self._used_by, self._before, self._failed = "", "", 0
        self._paired_before = 0

    def begin(self, test: str, failed: int) -> None:
        """A test begins. failed: how many have failed until now; if one of ours did, nothing of it is kept."""
        if failed != self._failed:
            self.end()
        self._failed, self._before, self._used_by = failed, self._used_by, test

    def end(self) -> None:
        """End the lab; the next test has another."""
        stack, self._stack = self._stack, ExitStack()
        self._lab = self._machine = None
        stack.close()

    def lab(self) -> Lab:
        """The lab, whole, with nothing to run."""
        return self.lab_for(None)

    def lab_for(self, wish: machines.Wish | None) -> Lab:
        """The lab, whole, with nothing to run but a machine of that wish if an earlier test had one."""
        if self._lab is None:
            name = f"s{os.getpid() % 10000}x{next(_numbers)}"
            self._lab = self._stack.enter_context(owned_lab(name, 3, 1, print, self._timing))
            ready.until_ready(self._lab, WHOLE_S)
            return self._lab
        with self._blamed("the lab does not become whole again"):
            mend(self._lab)
            again = self._pairings(self._lab) - self._paired_before
            if self._machine is None or self._machine != wish or again > MOST_PAIRINGS:
                self._machine = None
                forget_workloads(self._lab)
        return self._lab

    def machine(self, wish: machines.Wish) -> tuple[str, str]:
        """Have a machine run in the lab, and be followed if it is hot; its hosts: primary, and standby or ''.

        It is the one that an earlier test had if that was of the same wish, wherever that left it.
        """
        lab = self.lab_for(wish) if self._lab is None else self._lab
        if self._machine is None:
            self._paired_before = self._pairings(lab)
            primary = machines.begin(lab, tiny(), wish)
            self._machine = wish
            return self._hosts(lab, wish, primary)
        with self._blamed("its machine does not run as it did"):
            primary = ready.until_running(lab, wish.name, WHOLE_S)
            Server.reach(wish.address, WHOLE_S, namespace=lab.plan.client).close()
            return self._hosts(lab, wish, primary)

    def _hosts(self, lab: Lab, wish: machines.Wish, primary: str) -> tuple[str, str]:
        if wish.protection != "hot":
            return primary, ""
        return machines.until_followed(lab, wish.name, WHOLE_S)

    @staticmethod
    def _pairings(lab: Lab) -> int:
        return [event["kind"] for event in recorded(lab)].count("standby.chosen")

    @contextmanager
    def _blamed(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OutliveError, AssertionError) as error:
            self.end()
            raise AssertionError(f"after {self._before}: {what}: {error}") from error


def mend(lab: Lab) -> None:
    """Let paused hosts go on, switch on those without power, plug in all links; returns when all are alive."""
    for host in lab.plan.hosts:
        if any("frozen 1" in path.read_text() for path in hosts.group(lab.plan, host.name).glob("*/cgroup.events")):
            lab.resume(host.name)
        if not hosts.is_on(lab.plan, host.name):
            lab.start(host.name)
    lab.heal()
    ready.until_ready(lab, WHOLE_S)


def forget_workloads(lab: Lab) -> None:
    """Remove all workloads, and what they leave on disks."""
    client = ready.any_client(lab)
    names = [each["name"] for each in ready.outlook(lab)["workloads"]]
    for name in names:
        forget(client, name)
    ready.until(lab, "no workload is left", lambda found: not found["workloads"], WHOLE_S)
    for name in names:
        _until_none(lab, name)
        folders = [lab.plan.datastore / kind / name for kind in ("data", "checkpoints")]
        for folder in [*folders, *(lab.plan.host_folder(host.name) / "vms" / name for host in lab.plan.hosts)]:
            shutil.rmtree(folder, ignore_errors=True)


def _until_none(lab: Lab, name: str) -> None:
    """Wait until no host has a process of a workload."""
    deadline = time.monotonic() + WHOLE_S
    while any(hosts.pids(lab.plan, host.name, f"{hosts.WORKLOADS}/{name}") for host in lab.plan.hosts):
        assert time.monotonic() < deadline, f"processes of {name} stay"
        time.sleep(0.02)
