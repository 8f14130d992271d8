"""Any agent answers for the cluster while agents and hosts die: rightly, or with a problem, and does nothing twice."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from outlive.cli.events import followed
from outlive.client import Client
from outlive.client.connection import Answered
from outlive.errors import ClusterUnreachable
from outlive.lab import ready
from outlive.lab.lab import Lab

from .looks import agent_pid
from .shared import SharedLab

WITHIN_S = 60.0
NO_HANG_S = 30.0
MOST_WISHES = 8
WEB = 'name = "web"\n[module.main]\ncommand = ["/usr/bin/sleep", "3600"]\n'
ANSWERS = {"well", "later", "nobody there"}
WELL = {"list well", "one well", "foretold well"}
FORCED = {"kind": "failover", "workload": "web"}


@dataclass
class Asking:
    """People and programs that ask every agent, over and over, until told to stop."""

    lab: Lab
    over: threading.Event = field(default_factory=threading.Event)
    answered: list[str] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    wished: list[str] = field(default_factory=list)

    def sockets(self, first: str) -> list[str]:
        names = sorted((host.name for host in self.lab.plan.hosts), key=lambda name: name != first)
        return [str(self.lab.plan.api(name)) for name in names]

    def ask(self, host: str) -> None:
        """Ask one agent for what it knows itself, and for what the leader alone knows."""
        client = Client(str(self.lab.plan.api(host)))
        while not self.over.is_set():
            for what, ask in (
                ("list", lambda: client.get("/v1/workloads")),
                ("one", lambda: client.get("/v1/workloads/web")),
                ("foretold", lambda: client.post("/v1/operations?dry_run=1", FORCED)),
            ):
                begun = time.monotonic()
                self.answered.append(f"{what} {self._answered(ask)}")
                self.took_s.append(time.monotonic() - begun)
            time.sleep(0.05)

    @staticmethod
    def _answered(ask: Callable[[], Any]) -> str:
        try:
            ask()
        except Answered as refused:
            return "later" if refused.exit_code == 4 else str(refused.told)
        except ClusterUnreachable:
            return "nobody there"
        return "well"

    def until_well(self) -> None:
        """Wait until everything that is asked for was answered well once."""
        deadline = time.monotonic() + WITHIN_S
        while not set(self.answered) >= WELL:
            assert time.monotonic() < deadline, set(self.answered)
            time.sleep(0.05)

    def wish(self, first: str) -> None:
        """Ask for moves, by whichever agent answers; each of them once."""
        client = Client(self.sockets(first)[0], self.sockets(first))
        while not self.over.is_set() and len(self.wished) < MOST_WISHES:
            asked = client.post("/v1/operations", {"kind": "migrate", "workload": "web"})
            self.wished.append(asked["operation"]["id"])
            time.sleep(0.4)

    def follow(self, first: str) -> list[str]:
        """The ids of all events up to the last, as one follower hears them."""
        return list(until_last(followed(Client(self.sockets(first)[0], self.sockets(first)), 5000)))


def web_runs(shared: SharedLab) -> Lab:
    """The lab, where `web` runs and every agent knows it."""
    lab = shared.lab()
    ready.any_client(lab).put("/v1/workloads/web", WEB.encode())
    ready.until_all_know_it_runs(lab, "web", WITHIN_S)
    return lab


def until_last(events: Iterator[dict[str, Any]]) -> Iterator[str]:
    for event in events:
        yield event["id"]
        if event["kind"] == "network.applied" and event["text"].startswith("the-last:"):
            return


def test_any_agent_answers_while_agents_and_their_hosts_die(shared: SharedLab) -> None:
    lab = web_runs(shared)
    leader = str(ready.outlook(lab)["leader"])
    before = {each["id"] for each in ready.any_client(lab).pages("/v1/operations", "operations")}
    other = next(host.name for host in lab.plan.hosts if host.name != leader)
    asking = Asking(lab)
    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(asking.ask, host.name) for host in lab.plan.hosts]
        wishing, following = pool.submit(asking.wish, leader), pool.submit(asking.follow, leader)
        try:
            asking.until_well()
            for host in (leader, other):
                os.kill(agent_pid(lab, host), signal.SIGKILL)
                time.sleep(0.7)
            lab.kill(leader)
            ready.until(lab, "another leads", lambda found: found["leader"] not in (None, leader), WITHIN_S)
            wishing.result(WITHIN_S)
        finally:
            asking.over.set()
        for each in running:
            each.result(WITHIN_S)
        client = ready.any_client(lab)
        client.put("/v1/networks/the-last", b"{}")
        heard = following.result(WITHIN_S)
        whole = list(until_last(followed(client, 5000)))
        client.delete("/v1/networks/the-last")
    assert heard == whole, "nothing is missed and nothing heard twice, whichever agent told it"
    assert len(set(heard)) == len(heard)
    assert set(asking.answered) >= WELL
    assert {each.partition(" ")[2] for each in asking.answered} <= ANSWERS
    assert not {"list later", "one later"} & set(asking.answered), "what every agent knows is never for later"
    assert max(asking.took_s) < NO_HANG_S
    known = {each["id"] for each in client.pages("/v1/operations", "operations")}
    asked = [event for event in client.pages("/v1/events?workload=web", "events") if event["kind"] == "migrate.asked"]
    assert len(set(asking.wished)) == len(asking.wished) >= 3
    assert known - before == set(asking.wished), "each wish is one operation, and none is another"
    assert len(asked) >= len(asking.wished)


def test_a_dry_run_tells_what_the_leader_would_decide_wherever_it_is_asked_for(shared: SharedLab) -> None:
    lab = web_runs(shared)
    told = [
        Client(str(lab.plan.api(host.name))).post("/v1/operations?dry_run=1", FORCED)["commands"]
        for host in lab.plan.hosts
    ]
    kinds = [[(command["command"], command.get("kind")) for command in commands] for commands in told]
    assert kinds[0]
    assert kinds == [kinds[0]] * 3
