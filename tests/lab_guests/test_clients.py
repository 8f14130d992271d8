"""The counting clients against the guest's own server, both run here: records are whole and breaks are seen."""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outlive.lab.guests.clients import Asking, Clients, ClientsFailed, GuestSilent, Server
from outlive.lab.guests.history import judge
from outlive.native import find_guest_program

from ..ports import free_port

HERE = "127.0.0.1"


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until it holds, long enough for a busy machine."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Guest:
    """The guest's server as a process of this machine, on a port of its own."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.process = subprocess.Popen(
            [find_guest_program("outlive-guest-server"), str(port)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "outlive guest ready\n"

    def close(self) -> None:
        with self.process:
            self.process.kill()

    def asking(self, **more: object) -> Asking:
        return Asking(HERE, port=self.port, **more)  # type: ignore[arg-type]  # the test names the fields


@pytest.fixture
def guest() -> Iterator[Guest]:
    with free_port() as port:
        made = Guest(port)
        yield made
        made.close()


def test_open_connections_count_and_nothing_is_lost(guest: Guest, tmp_path: Path) -> None:
    with Clients(guest.asking(connections=8, seconds=0.5), tmp_path / "record") as clients:
        history = clients.wait(60)
    outcome = judge(history)
    assert outcome.clean
    assert outcome.answered > 0
    assert len(history.connections) == 8
    assert history.ended_ns is not None
    with Server.reach(HERE, 60, port=guest.port) as server:
        assert server.state()["counter"] == str(outcome.answered)


def test_clients_are_stopped_and_verify_what_they_were_told(guest: Guest, tmp_path: Path) -> None:
    with Clients(guest.asking(connections=3, think_ms=5), tmp_path / "record") as clients:
        clients.until_answered(3, 60)
        assert clients.so_far().ended_ns is None
        outcome = judge(clients.stop())
    assert outcome.clean
    assert outcome.unverified == 0


def test_a_second_run_with_the_same_ids_is_judged_by_its_own_counts(guest: Guest, tmp_path: Path) -> None:
    for _ in range(2):
        with Clients(guest.asking(seconds=0.1), tmp_path / "record") as clients:
            assert judge(clients.wait(60)).clean


def test_a_server_that_dies_breaks_every_connection(guest: Guest, tmp_path: Path) -> None:
    with Clients(guest.asking(connections=2), tmp_path / "record") as clients:
        clients.until_answered(2, 60)
        guest.close()
        outcome = judge(clients.stop())
    assert outcome.broken_connections == 2
    assert outcome.unverified == 2
    assert not outcome.clean


def test_a_server_that_forgot_is_found_out_by_clients_that_come_back(guest: Guest, tmp_path: Path) -> None:
    asking = guest.asking(connections=2, reconnect=True, think_ms=1)
    with Clients(asking, tmp_path / "record") as clients:
        clients.until_answered(2, 60)
        guest.close()
        again = Guest(guest.port)
        try:
            answered = len(clients.so_far().answers)
            eventually(lambda: len(clients.so_far().answers) > answered + 20)
            outcome = judge(clients.stop())
        finally:
            again.close()
    assert outcome.broken_connections == 2
    assert outcome.lost > 0


def test_nobody_at_the_other_end_is_told_in_words(tmp_path: Path) -> None:
    with free_port() as port:
        with pytest.raises(GuestSilent, match="No server answers"):
            Server.reach(HERE, 0.1, port=port)
        with Clients(Asking(HERE, seconds=0.1, port=port), tmp_path / "record") as clients:
            assert clients.wait(60).connections == frozenset()
    with Clients(Asking("nowhere"), tmp_path / "record") as clients, pytest.raises(ClientsFailed):
        clients.wait(60)


def test_bulk_goes_both_ways_whole(guest: Guest) -> None:
    with Server.reach(HERE, 60, port=guest.port) as server:
        assert server.send_bulk(5_000_001) > 0
        assert server.receive_bulk(5_000_001) > 0
        assert server.send_bulk(0) == 0
        assert server.ask("echo 0 5") == "0 5"


def test_memory_is_dirtied_when_asked_for(guest: Guest) -> None:
    with Server.reach(HERE, 60, port=guest.port) as server:
        assert server.ask("dirty 1000 100 4096") == "ok"
        eventually(lambda: int(server.state()["dirtied"]) > 0)
        assert server.ask("dirty 0 0") == "ok"
        assert server.ask("nonsense") == "unknown request"
