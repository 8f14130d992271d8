"""Run as a program: the other processes that the store's tests need. First argument: the part to play.

hold PATH                  keep the write lock until standard input ends.
count PATH TIMES           count the key "count" up, so many times, by compare and swap.
lease PATH TTL_S           put "leased" under a new lease, say so, and wait to be killed.
kill PATH ROUNDS           start writers and kill them at random moments; check the store after each round.
kill-making FOLDER ROUNDS  the same with writers that make the store first, a new one in each round.
full FOLDER                fill the small file system under FOLDER and make room again.

Results go to standard output as one JSON object. Children end by themselves if nobody kills them.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

from outlive.cluster.transaction import KeyValue, Put, Transaction, TransactionResult, unchanged
from outlive.store.base import StoreFull
from outlive.store.sqlite import SqliteStore

LIMIT_S = 60.0
CHILD_LIFE_S = 20


def hold(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    print("held", flush=True)
    sys.stdin.read()
    connection.execute("ROLLBACK")
    connection.close()


async def count(path: Path, times: int) -> None:
    store = await SqliteStore.open(path, timeout_s=LIMIT_S)
    while times:
        seen = await store.get("count", timeout_s=LIMIT_S)
        assert seen is not None
        value = str(int(seen.value) + 1).encode()
        swap = Transaction((unchanged("count", seen.mod_revision),), (Put("count", value),))
        times -= (await store.transact(swap, timeout_s=LIMIT_S)).succeeded
    await store.close()


async def lease(path: Path, ttl_s: int) -> None:
    store = await SqliteStore.open(path, timeout_s=LIMIT_S)
    granted = await store.grant_lease(ttl_s, timeout_s=LIMIT_S)
    await write(store, Put("leased", b"", granted.id))
    print(granted.id, flush=True)
    await asyncio.sleep(CHILD_LIFE_S)


async def write(store: SqliteStore, *writes: Put) -> TransactionResult:
    return await store.transact(Transaction((), writes), timeout_s=LIMIT_S)


def in_a_child(work: Callable[[int], None]) -> tuple[int, int]:
    """Fork a child that runs `work` with a pipe to write to; its process id and the pipe's other end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    signal.alarm(CHILD_LIFE_S)
    try:
        work(writing)
    finally:
        os._exit(1)


def write_until_killed(path: Path, name: str, number: int) -> Callable[[int], None]:
    """Write the same number under two keys, tell it with its revision once acknowledged, and count on."""

    async def writing(acknowledge: int) -> None:
        store = await SqliteStore.open(path, timeout_s=LIMIT_S)
        next_number = number
        while True:
            value = str(next_number).encode()
            result = await write(store, Put(f"{name}/left", value), Put(f"{name}/right", value + b"." * 3000))
            os.write(acknowledge, f"{next_number} {result.revision}\n".encode())
            next_number += 1

    return lambda acknowledge: asyncio.run(writing(acknowledge))


def kill_after(delay_s: float, children: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """What each child acknowledged: numbers and revisions."""
    time.sleep(delay_s)
    for child, _ in children:
        os.kill(child, signal.SIGKILL)
    acknowledged = []
    for child, pipe in children:
        os.waitpid(child, 0)
        with os.fdopen(pipe) as lines:
            acknowledged.append([(int(line.split()[0]), int(line.split()[1])) for line in lines])
    return acknowledged


async def told(store: SqliteStore, from_revision: int, upto: int) -> dict[int, dict[str, bytes]]:
    changes: dict[int, dict[str, bytes]] = {}
    async with contextlib.aclosing(store.watch("", from_revision)) as watch:
        async for batch in watch:
            if batch.changes:
                changes[batch.revision] = {
                    change.key: change.value for change in batch.changes if isinstance(change, KeyValue)
                }
            if batch.revision >= upto:
                return changes
    raise AssertionError("the watch ended")


async def check_round(
    path: Path, before: int, acknowledged: dict[str, list[tuple[int, int]]], numbers: dict[str, int]
) -> int:
    """Compare the store with what was acknowledged since revision `before`; the revision it is at now."""
    store = await SqliteStore.open(path, timeout_s=LIMIT_S)  # which checks every page
    listing = await store.list("", timeout_s=LIMIT_S)
    values = {key.key: key for key in listing.keys}
    changes = await told(store, before + 1, listing.revision) if listing.revision > before else {}
    assert list(changes) == list(range(before + 1, listing.revision + 1)), "a revision is missing"
    for name, acks in acknowledged.items():
        left, right = values.get(f"{name}/left"), values.get(f"{name}/right")
        written = int(left.value) if left else 0
        last = acks[-1][0] if acks else numbers[name] - 1
        assert written in (last, last + 1), f"{name}: {last} was acknowledged, {written} is there"
        assert (left and (left.value, left.mod_revision)) == (
            right and (right.value.rstrip(b"."), right.mod_revision)
        ), "half a transaction"
        for number, revision in acks:
            assert changes[revision][f"{name}/left"] == str(number).encode(), "acknowledged under another revision"
        numbers[name] = written + 1
    marker = await write(store, Put("marker", b""))
    assert marker.revision == listing.revision + 1
    await store.close()
    return marker.revision


def kill(path: Path, rounds: int) -> dict[str, int]:
    """One writer starts over with each round; others go on from what the store holds."""
    rng = random.Random()
    numbers = {"a": 1, "b": 1}
    revision = transactions = 0
    for _ in range(rounds):
        children = [in_a_child(write_until_killed(path, name, number)) for name, number in numbers.items()]
        acks = dict(zip(numbers, kill_after(rng.uniform(0.005, 0.08), children), strict=True))
        transactions += sum(map(len, acks.values()))
        revision = asyncio.run(check_round(path, revision, acks, numbers))
    return {"rounds": rounds, "acknowledged": transactions, "revision": revision}


def kill_making(folder: Path, rounds: int) -> dict[str, int]:
    rng = random.Random()
    made = 0
    for number in range(rounds):
        path = folder / f"{number}.db"
        children = [in_a_child(write_until_killed(path, name, 1)) for name in "ab"]
        acks = dict(zip("ab", kill_after(rng.uniform(0.0, 0.025), children), strict=True))
        made += path.exists()
        asyncio.run(check_round(path, 0, acks, {"a": 1, "b": 1}))
    return {"rounds": rounds, "made_before_the_kill": made}


async def full(folder: Path) -> dict[str, object]:
    store = await SqliteStore.open(folder / "store.db", timeout_s=LIMIT_S)
    lease_id = (await store.grant_lease(2, timeout_s=LIMIT_S)).id
    await write(store, Put("leased", b"", lease_id))
    ballast = folder / "ballast"
    ballast.write_bytes(b"\0" * (500 * 1024))
    acknowledged, error = 0, None
    while error is None:
        try:
            await write(store, Put(f"key/{acknowledged}", b"v" * 20_000))
            acknowledged += 1
        except StoreFull as raised:
            error = raised
    kept = len((await store.list("key/", timeout_s=LIMIT_S)).keys)
    await asyncio.sleep(2.2)
    leased_while_full = await store.get("leased", timeout_s=LIMIT_S)
    ballast.unlink()
    after = await write(store, Put("after", b"v" * 20_000))
    kept_after = len((await store.list("key/", timeout_s=LIMIT_S)).keys)
    changes = await told(store, 1, after.revision)
    await store.close()
    again = await SqliteStore.open(folder / "store.db", timeout_s=LIMIT_S)
    reopened = len((await again.list("key/", timeout_s=LIMIT_S)).keys)
    await again.close()
    return {
        "acknowledged": acknowledged,
        "error": error.problem(),
        "kept": kept,
        "leased_while_full": leased_while_full is not None,
        "kept_after": kept_after,
        "reopened": reopened,
        "revisions_told": list(changes) == list(range(1, after.revision + 1)),
    }


def main(part: str, place: Path, number: int) -> None:
    match part:
        case "hold":
            hold(place)
        case "count":
            asyncio.run(count(place, number))
        case "lease":
            asyncio.run(lease(place, number))
        case "kill":
            print(json.dumps(kill(place, number)))
        case "kill-making":
            print(json.dumps(kill_making(place, number)))
        case "full":
            print(json.dumps(asyncio.run(full(place))))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
