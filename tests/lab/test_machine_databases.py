"""PostgreSQL in a machine keeps its word to pgbench's clients through its hosts' power cuts, at random moments.

Hot: what a client saw committed is there, once, and no connection breaks. Warm: the database is as it was at the
checkpoint. Either way pg_amcheck finds it whole, and pgbench's sums agree.
"""

import random
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

from outlive.lab import machines, ready
from outlive.lab.guests.debian import SIZE_MIB, DebianGuest, debian
from outlive.lab.guests.postgres import Bench, Postgres
from outlive.lab.lab import Lab
from outlive.lab.speaking import listened
from outlive.lab.watching import watched

CUTS = 20
BOOT_S, FOLLOWED_S, AGAIN_S = 300.0, 180.0, 120.0
CLIENTS, SECONDS = 4, 15
SOONEST_S, LATEST_S = 0.5, 5.0
CHECKPOINT_S = 3
GIVEN_UP_S = 2.0
CLOCK_S = 0.5
LEDGER = 0


@dataclass
class Stage:
    lab: Lab
    wish: machines.Wish
    database: Postgres

    def until_elsewhere(self, primary: str) -> str:
        """Wait until another host runs it; returns that host."""

        def moved(found: dict[str, object]) -> bool:
            each = ready.workload(found, self.wish.name)
            return each is not None and each["state"] == "running" and each["host"] != primary

        found = ready.until(self.lab, "it runs elsewhere", moved, AGAIN_S, besides=(primary,))
        return str((ready.workload(found, self.wish.name) or {})["host"])


def on_stage(lab: Lab, protection: str, disk_on: str, more: str = "") -> Stage:
    """A Debian machine whose database answers."""
    guest: DebianGuest = debian(say=print)
    wish = machines.Wish(
        protection, memory_mib=512, disk_on=disk_on, disk_mib=SIZE_MIB, source=str(guest.image), more=more
    )
    ready.until_ready(lab, 30)
    ready.any_client(lab).put(f"/v1/workloads/{wish.name}", machines.workload_file(guest, wish).encode())
    ready.until_running(lab, wish.name, BOOT_S)
    database = Postgres(guest, wish.address, namespace=lab.plan.client)
    database.until_ready(BOOT_S)
    return Stage(lab, wish, database)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_hot_every_commit_that_a_client_saw_is_there_and_its_connection_goes_on(lab: Lab, tmp_path: Path) -> None:
    with listened(lab) as voices:
        stage = on_stage(lab, "hot", "local")
        for number in range(CUTS):
            primary, standby = machines.until_followed(lab, stage.wish.name, FOLLOWED_S)
            with Bench(stage.database, tmp_path / f"bench-{number}", clients=CLIENTS, seconds=SECONDS) as bench:
                bench.until_begun()
                time.sleep(random.uniform(SOONEST_S, LATEST_S))
                lab.kill(primary)
                outcome = bench.judge()
            print(f"cut {number + 1}: {primary} to {standby}: {outcome}")
            assert outcome.clean, outcome
            assert outcome.broken_connections == 0, outcome
            assert outcome.acknowledged > CLIENTS
            assert stage.until_elsewhere(primary) == standby
            lab.start(primary)
        time.sleep(0.5)
    assert not voices.both, voices.both[:5]


def numbers_by_client(rows: list[tuple[int, int]]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for client, number in sorted(rows):
        found[client].append(number)
    return found


def checkpoints_unix_s(stage: Stage, primary: str) -> tuple[float, float]:
    """When the whole checkpoint before the newest one was written, and the newest, from which the machine goes on.

    Each is of a moment before it was written, and after the one before it was.
    """
    client = ready.any_client(stage.lab, besides=(primary,))
    listed = client.get(f"/v1/workloads/{stage.wish.name}/checkpoints")["checkpoints"]
    written = sorted(float(each["created_unix_s"]) for each in listed if not each["problem"])
    return written[-2], written[-1]


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_warm_the_database_is_as_at_the_checkpoint_and_whole(lab: Lab, tmp_path: Path) -> None:
    with watched(lab, machines.WORKLOAD) as sightings:
        stage = on_stage(lab, "warm", "shared", f"[warm]\ninterval_s = {CHECKPOINT_S}\n")
        for number in range(CUTS):
            primary = ready.until_running(lab, stage.wish.name, AGAIN_S)
            with Bench(
                stage.database, tmp_path / f"bench-{number}", clients=CLIENTS, seconds=SECONDS, silence_s=GIVEN_UP_S
            ) as bench:
                bench.until_begun()
                time.sleep(CHECKPOINT_S + random.uniform(SOONEST_S, LATEST_S))
                lab.kill(primary)
                after_unix_s, until_unix_s = checkpoints_unix_s(stage, primary)
                stage.until_elsewhere(primary)
                stage.database.until_ready(AGAIN_S)
                told = [each for each in bench.told() if each.script == LEDGER]
                rows = numbers_by_client(stage.database.rows(bench.run))
            print(f"cut {number + 1}: {primary}: {len(told)} told, {sum(map(len, rows.values()))} there")
            assert told
            assert stage.database.complaints() == []
            for client in range(CLIENTS):
                told_us = [each.at_us for each in told if each.client == client]
                # What is there has no holes, all that was told before the checkpoint, and nothing from after it.
                assert rows[client] == list(range(1, len(rows[client]) + 1))
                assert len(rows[client]) >= sum(1 for at_us in told_us if at_us < (after_unix_s - CLOCK_S) * 1e6)
                assert len(rows[client]) <= sum(1 for at_us in told_us if at_us < (until_unix_s + CLOCK_S) * 1e6) + 1
            lab.start(primary)
            ready.until_ready(lab, AGAIN_S)
    assert not sightings.double_run, sightings.both[:5]
