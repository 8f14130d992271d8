"""A virtual machine in a lab, clients on open connections to its guest, and what must hold when the test is over."""

import itertools
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outlive.lab import hosts, machines, ready
from outlive.lab.guests.clients import Asking, Clients, Server
from outlive.lab.guests.history import History, judge
from outlive.lab.lab import Lab
from outlive.lab.speaking import Voices, listened
from outlive.lab.watching import watched

from .looks import EVENTS, agent_pid, agent_pids, recorded
from .shared import SharedLab

AGAIN_S = 60.0
FOLLOWED_S = 90.0
MOVED_S = 90.0
ANSWERED_S = 30.0
MANY = 25

_records = itertools.count()


@dataclass
class MachineScene:
    """What a test plays with.

    primary, standby: the hosts when the test begins; standby '' where nobody follows.
    before:           the events that were recorded before it began.
    """

    lab: Lab
    folder: Path
    primary: str
    standby: str = ""
    voices: Voices | None = None
    before: frozenset[str] = field(default_factory=frozenset)

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

    def fresh_id(self) -> int:
        """The number of a client that asked nothing yet."""
        return _fresh_ids()

    @contextmanager
    def clients(self, request: str = "inc", connections: int = 4, think_ms: float = 2.0) -> Iterator[Clients]:
        """Clients that ask on open connections, and never reconnect."""
        first_id = _fresh_ids()
        asking = Asking(
            machines.ADDRESS, connections, request=request, first_id=first_id, think_ms=think_ms, after_s=ANSWERED_S
        )
        record = self.folder / f"record-{first_id}"
        with Clients(asking, record, namespace=self.lab.plan.client) as asked:
            asked.until_answered(connections, AGAIN_S, answers=MANY)
            yield asked

    def processes(self, host: str, module: str = "vm") -> list[int]:
        """The processes of a module of the machine on a host: vm is QEMU, comm the communication manager."""
        return hosts.pids(self.lab.plan, host, f"{hosts.WORKLOADS}/{self.name}/{module}")

    def kill_processes(self, host: str, module: str, number: int) -> None:
        """Send a signal to each of them. Killed ones are gone then: a dying emulator's guest may take a connection."""
        found = self.processes(host, module)
        assert found, f"{module} has no processes on {host}"
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + AGAIN_S
        while number == signal.SIGKILL and set(found) & set(self.processes(host, module)):
            assert time.monotonic() < deadline, f"{module} does not die on {host}"
            time.sleep(0.005)

    def starts(self, host: str) -> int:
        """How often an agent of a host has started."""
        events = ready.any_client(self.lab).get(f"/v1/events?limit={EVENTS}&host={host}")["events"]
        return [event["kind"] for event in events].count("agent.started")

    def agent_pid(self, host: str) -> int:
        """The agent's own process on a host: its keeper's child."""
        return agent_pid(self.lab, host)

    def agent_pids(self, host: str) -> list[int]:
        """The same; none between two of them."""
        return agent_pids(self.lab, host)

    def events(self, *, besides: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        """Everything recorded of the machine since the test began, in order."""
        found = recorded(self.lab, self.name, besides=besides)
        return [event for event in found if event["id"] not in self.before]

    def kinds(self, *, besides: tuple[str, ...] = ()) -> list[str]:
        """What was recorded of the machine since the test began, by kind."""
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

    def another_host(self) -> str:
        """A host on which nothing of the machine was when the test began."""
        return next(host.name for host in self.lab.plan.hosts if host.name not in (self.primary, self.standby))

    def move(self, target: str) -> str:
        """Have it moved and wait for the end; returns the state that the move ended in."""
        client = ready.any_client(self.lab)
        asked = client.post("/v1/operations", {"kind": "migrate", "workload": self.name, "target": target})
        deadline = time.monotonic() + MOVED_S
        while time.monotonic() < deadline:
            found = client.get(f"/v1/operations/{asked['operation']['id']}?wait_s=10")
            if found["state"] not in ("asked", "running"):
                return str(found["state"])
        raise AssertionError("the move does not end")

    def followed(self, *, besides: tuple[str, ...] = ()) -> tuple[str, str]:
        """The hosts of primary and standby, once a standby holds a whole epoch."""
        return machines.until_followed(self.lab, self.name, FOLLOWED_S, besides=besides)


def answered_anew(clients: Clients, connections: int = 4) -> None:
    """Wait until so many connections had an answer to what they asked from now on."""
    now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    deadline = time.monotonic() + AGAIN_S
    while len({each.connection for each in clients.so_far().answers if each.sent_ns > now_ns}) < connections:
        assert time.monotonic() < deadline, "clients are not answered any more"
        time.sleep(0.1)


def nothing_lost(history: History) -> None:
    """Every answer stands, nothing was done twice, and no connection broke."""
    outcome = judge(history)
    assert outcome.answered > 20
    found = (outcome.lost, outcome.duplicated, outcome.broken_connections, outcome.unanswered, outcome.failed)
    assert found == (0, 0, 0, 0, 0), outcome


def nothing_lost_by_a_move(scene: MachineScene) -> None:
    """Have it moved to another host; for clients that count and clients that write that is no more than a pause."""
    target = scene.another_host()
    with scene.clients() as clients, scene.clients("dw", 1) as writing:
        assert scene.move(target) == "done"
        time.sleep(1)
        for history in (clients.stop(), writing.stop()):
            nothing_lost(history)
    assert scene.runs_on() == target


@contextmanager
def machine_on_stage(
    shared: SharedLab, folder: Path, wish: machines.Wish, *, moves: bool = False
) -> Iterator[MachineScene]:
    """A machine runs, and is followed if it is hot; afterwards check that no two hosts ever acted for it at once.

    moves: it is to be moved, so that two emulators are there for a while, of which one may be heard.
    """
    lab = shared.lab_for(wish)
    if wish.protection == "hot" or moves:
        with listened(lab) as voices:
            with _told_on_failure(lab):
                yield _scene(shared, lab, folder, wish, voices)
            time.sleep(0.2)
        assert not voices.both, voices.both[:5]
    else:
        with watched(lab, wish.name) as sightings, _told_on_failure(lab):
            yield _scene(shared, lab, folder, wish, None)
        assert not sightings.double_run, sightings.both[:5]


def _scene(shared: SharedLab, lab: Lab, folder: Path, wish: machines.Wish, voices: Voices | None) -> MachineScene:
    primary, standby = shared.machine(wish)
    before = frozenset(event["id"] for event in recorded(lab, wish.name))
    return MachineScene(lab, folder, primary, standby, voices, before)


def _fresh_ids() -> int:
    """The first of eight numbers of clients; the guest knows 1024, far more than the tests of one machine need."""
    return next(_records) % 128 * 8


@contextmanager
def _told_on_failure(lab: Lab) -> Iterator[None]:
    """Print what the cluster recorded when a test fails."""
    try:
        yield
    except BaseException:
        for event in ready.any_client(lab).get("/v1/events?limit=200")["events"]:
            print(event["unix_ms"], event["by"], event["kind"], event["host"], event["generation"], event["text"][:150])
        raise
