"""A virtual machine in a lab, clients on open connections to its guest, and what must hold when the test is over."""

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outlive.lab import hosts, machines, ready
from outlive.lab.guests.clients import Asking, Clients, Server
from outlive.lab.guests.history import History, judge
from outlive.lab.guests.tiny import tiny
from outlive.lab.lab import Lab
from outlive.lab.speaking import Voices, listened
from outlive.lab.watching import watched

AGAIN_S = 60.0
FOLLOWED_S = 60.0


@dataclass
class MachineScene:
    """What a test plays with. primary, standby: the hosts when the test begins; standby '' where nobody follows."""

    lab: Lab
    folder: Path
    primary: str
    standby: str = ""
    voices: Voices | None = None
    _records: Iterator[int] = field(default_factory=itertools.count)

    @property
    def name(self) -> str:
        return machines.WORKLOAD

    def server(self, timeout_s: float = AGAIN_S) -> Server:
        """A connection to the guest's server."""
        return Server.reach(machines.ADDRESS, timeout_s, namespace=self.lab.plan.client)

    def state(self) -> dict[str, str]:
        """What the guest's server says of itself."""
        with self.server() as server:
            return server.state()

    @contextmanager
    def clients(self, request: str = "inc", connections: int = 4, think_ms: float = 2.0) -> Iterator[Clients]:
        """Clients that ask on open connections, and never reconnect."""
        number = next(self._records)
        asking = Asking(
            machines.ADDRESS, connections, request=request, first_id=number * 50, think_ms=think_ms, after_s=3.0
        )
        record = self.folder / f"record-{number}"
        with Clients(asking, record, namespace=self.lab.plan.client) as asked:
            asked.until_answered(connections, 30)
            yield asked

    def processes(self, host: str, module: str = "vm") -> list[int]:
        """The processes of a module of the machine on a host: vm is QEMU, comm the communication manager."""
        return hosts.pids(self.lab.plan, host, f"{hosts.WORKLOADS}/{self.name}/{module}")

    def kill_processes(self, host: str, module: str, number: int) -> None:
        """Send a signal to each of them."""
        found = self.processes(host, module)
        assert found, f"{module} has no processes on {host}"
        for pid in found:
            os.kill(pid, number)

    def starts(self, host: str) -> int:
        """How often an agent of a host has started."""
        events = ready.any_client(self.lab).get(f"/v1/events?limit=500&host={host}")["events"]
        return [event["kind"] for event in events].count("agent.started")

    def agent_pid(self, host: str) -> int:
        """The agent's own process on a host: its keeper's child."""
        found = self.agent_pids(host)
        assert found, "no agent runs there"
        return found[0]

    def agent_pids(self, host: str) -> list[int]:
        """The same; none between two of them."""
        found = []
        for pid in hosts.pids(self.lab.plan, host, hosts.AGENT):
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if b"agent" in words and b"--keep" not in words:
                    found.append(pid)
        return found

    def events(self, *, besides: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        """Everything recorded of the machine, in order."""
        client = ready.any_client(self.lab, besides=besides)
        found: list[dict[str, Any]] = client.get(f"/v1/events?limit=1000&workload={self.name}")["events"]
        return found

    def kinds(self, *, besides: tuple[str, ...] = ()) -> list[str]:
        """What was recorded of the machine, by kind."""
        return [event["kind"] for event in self.events(besides=besides)]

    def until_told(self, kind: str, count: int = 1, *, besides: tuple[str, ...] = ()) -> None:
        """Wait until an event of that kind was recorded so often."""
        ready.until(
            self.lab, f"{kind} was recorded", lambda _: self.kinds(besides=besides).count(kind) >= count, AGAIN_S,
            besides=besides,
        )  # fmt: skip

    def runs_on(self, *, besides: tuple[str, ...] = ()) -> str:
        """The host that runs it, once one does."""
        return ready.until_running(self.lab, self.name, AGAIN_S, besides=besides)

    def runs_elsewhere(self) -> str:
        """Wait until another host than the primary runs it; returns it."""

        def moved(found: dict[str, Any]) -> bool:
            each = ready.workload(found, self.name)
            return each is not None and each["state"] == "running" and each["host"] != self.primary

        found = ready.until(self.lab, "it runs elsewhere", moved, AGAIN_S, besides=(self.primary,))
        return str((ready.workload(found, self.name) or {})["host"])

    def set_desired(self, desired: str) -> None:
        """Have it run or stopped, and wait until it is."""
        ready.any_client(self.lab).put(f"/v1/workloads/{self.name}/desired", {"desired": desired})

        def so(found: dict[str, Any]) -> bool:
            each = ready.workload(found, self.name)
            return each is not None and each["state"] == desired

        ready.until(self.lab, f"it is {desired}", so, AGAIN_S)

    def followed(self, *, besides: tuple[str, ...] = ()) -> tuple[str, str]:
        """The hosts of primary and standby, once a standby holds a whole epoch."""
        return machines.until_followed(self.lab, self.name, FOLLOWED_S, besides=besides)


def nothing_lost(history: History) -> None:
    """Every answer stands, nothing was done twice, and no connection broke."""
    outcome = judge(history)
    assert outcome.answered > 20
    found = (outcome.lost, outcome.duplicated, outcome.broken_connections, outcome.unanswered, outcome.failed)
    assert found == (0, 0, 0, 0, 0), outcome


@contextmanager
def machine_on_stage(lab: Lab, folder: Path, wish: machines.Wish, *, moves: bool = False) -> Iterator[MachineScene]:
    """A machine runs, and is followed if it is hot; afterwards check that no two hosts ever acted for it at once.

    moves: it is to be moved, so that two emulators are there for a while, of which one may be heard.
    """
    ready.until_ready(lab, 30)
    guest = tiny()
    if wish.protection == "hot" or moves:
        with listened(lab) as voices:
            primary, standby = machines.begin(lab, guest, wish), ""
            if wish.protection == "hot":
                primary, standby = machines.until_followed(lab, wish.name, FOLLOWED_S)
            with _told_on_failure(lab):
                yield MachineScene(lab, folder, primary, standby, voices)
            time.sleep(0.2)
        assert not voices.both, voices.both[:5]
    else:
        with watched(lab, wish.name) as sightings, _told_on_failure(lab):
            yield MachineScene(lab, folder, machines.begin(lab, guest, wish))
        assert not sightings.double_run, sightings.both[:5]


@contextmanager
def _told_on_failure(lab: Lab) -> Iterator[None]:
    """Print what the cluster recorded when a test fails."""
    try:
        yield
    except BaseException:
        for event in ready.any_client(lab).get("/v1/events?limit=200")["events"]:
            print(event["unix_ms"], event["by"], event["kind"], event["host"], event["generation"], event["text"][:150])
        raise
