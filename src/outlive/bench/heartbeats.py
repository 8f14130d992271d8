"""The bench of receiving heartbeats: a leader of more and more hosts, and what taking datagrams costs at least.

At each size as many heartbeats arrive in a second, so that sizes can be compared. Each is measured while all hosts
speak; then some fall silent, and it is seen when they are suspected and held to be dead while all others stay alive.
The processor's time is that of the whole receiving process, by the kernel's account, ticks and judging included.
"""

import asyncio
import gc
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from outlive.cluster.timing import Timing
from outlive.errors import Failed
from outlive.store.boot_clock import boot_time_s
from outlive.wire.endpoint import REPEATS_AT_ONCE, REST_S
from outlive.wire.seal import Seal
from outlive.wire.senders import Senders

from .listener import Listener, listener
from .speakers import CLUSTER, Speech, Spoken

LIMIT_CORES = 0.5
LIMIT_GROWTH = 1.3
SETTLED_S, ENDED_S = 120.0, 60.0
POLL_S = 0.02
MOST_HOSTS = 16000

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Row:
    """One size. Times of verdicts in seconds since the last heartbeat of the hosts that fell silent.

    per_second: heartbeats accepted.  dropped: datagrams that the kernel had no room for.  cores: of one processor.
    us_each: processor's time for one heartbeat; bare_us_each: for one datagram that is only taken.
    wrong: verdicts other than alive about hosts that spoke, or a silent one called alive again.
    late_s: the worst that the speakers themselves were late; more than a host may be silent explains wrong ones.
    """

    hosts: int
    modules: int
    per_second: float
    accepted: int
    repeated: int
    dropped: int
    cores: float
    us_each: float
    bare_us_each: float
    suspect_s: tuple[float, float]
    dead_s: tuple[float, float]
    wrong: int
    late_s: float

    @property
    def to_bare(self) -> float:
        """How many times the least it costs."""
        return self.us_each / self.bare_us_each if self.bare_us_each else 0.0


def sizes(hosts: int) -> tuple[int, ...]:
    """The numbers of hosts that are compared, the largest last."""
    return tuple(sorted({max(2, hosts // 100), max(2, hosts // 10), hosts}))


def play(hosts: int, modules: int, seconds: float, progress: Progress) -> tuple[Row, ...]:
    """Measure all sizes, each for so many seconds. Raises Failed when a leader does not get going."""
    per_second = hosts / Timing().heartbeat_s
    found = []
    for size in sizes(hosts):
        progress(f"{size} hosts, {per_second:.0f} heartbeats a second together")
        found.append(asyncio.run(_measure(size, modules, per_second, seconds)))
    return tuple(found)


async def _measure(hosts: int, modules: int, per_second: float, seconds: float) -> Row:
    key = os.urandom(32)
    with listener(hosts, modules, key) as leads, leads.listening() as endpoint:
        speech = Speech(endpoint.local.port, key.hex(), hosts, modules, per_second)
        async with _speakers(speech) as ask:
            await ask({"count": True})
            leads.join()
            await _until(lambda: leads.is_settled, SETTLED_S, "the leader did not hear all hosts")
            leads.renew(range(hosts))
            await _until(lambda: leads.is_up_to_date, SETTLED_S, "the leader did not read the store")
            gc.collect()
            gc.freeze()
            try:
                await ask({"count": True})
                told = len(leads.verdicts)
                accepted, repeated = endpoint.counts.accepted, leads.neighbours.receiver.senders.repeated
                cpu_s, began = time.process_time(), time.monotonic()
                await asyncio.sleep(seconds)
                cpu_s, took_s = time.process_time() - cpu_s, time.monotonic() - began
                accepted = endpoint.counts.accepted - accepted
                repeated = leads.neighbours.receiver.senders.repeated - repeated
                late_s = (await ask({"count": True})).late_s
                silenced = await _silence(leads, ask, max(1, hosts // 100))
            finally:
                gc.unfreeze()
            dropped = _dropped(endpoint.local.port)
            late_s = max(late_s, (await ask({"count": True})).late_s)
        wrong = sum(1 for host, verdict, _ in leads.verdicts[told:] if (host, verdict) not in silenced.expected)
    bare_us_each = await _bare(speech, seconds)
    return Row(
        hosts, modules, accepted / took_s, accepted, repeated, dropped, cpu_s / took_s, cpu_s / max(1, accepted) * 1e6,
        bare_us_each, silenced.suspect_s, silenced.dead_s, wrong, late_s,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Silenced:
    expected: frozenset[tuple[str, str]]
    suspect_s: tuple[float, float]
    dead_s: tuple[float, float]


Ask = Callable[[dict[str, Any]], Any]


async def _silence(leads: Listener, ask: Ask, count: int) -> _Silenced:
    """Have the first hosts fall silent, and their claims end when their leases would."""
    timing, told = leads.timing, len(leads.verdicts)
    leads.renew(range(leads.hosts))
    since = (await ask({"silence": count})).silent_since
    names = leads.names[:count]

    def when(verdict: str) -> list[float]:
        found = {host: at - since for host, said, at in leads.verdicts[told:] if said == verdict}
        return sorted(found[name] for name in names if name in found)

    await _until(lambda: len(when("suspect")) == count, ENDED_S, "silent hosts were not suspected")
    await asyncio.sleep(max(0.0, since + timing.claim_ttl_s - boot_time_s()))
    leads.end_claims(range(count))
    await _until(lambda: len(when("dead")) == count, ENDED_S, "silent hosts were not held to be dead")
    expected = frozenset((name, verdict) for name in names for verdict in ("suspect", "partitioned", "dead"))
    suspect, dead = when("suspect"), when("dead")
    return _Silenced(expected, (suspect[0], suspect[-1]), (dead[0], dead[-1]))


async def _bare(speech: Speech, seconds: float) -> float:
    """Take the same datagrams as seldom, and drop them: microseconds of processor's time for each."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        senders = Senders(Seal(CLUSTER, bytes.fromhex(speech.key)))
        heard = Speech(**{**asdict(speech), "port": sock.getsockname()[1]})
        async with _speakers(heard) as ask:
            await _until(lambda: senders.drop(sock.fileno(), REPEATS_AT_ONCE) > 0, ENDED_S, "nobody spoke")
            await ask({"count": True})
            cpu_s, until, taken = time.process_time(), time.monotonic() + seconds, 0
            while time.monotonic() < until:
                taken += senders.drop(sock.fileno(), REPEATS_AT_ONCE)
                time.sleep(REST_S)  # noqa: ASYNC251 -- a loop that does nothing else is what is measured
            return (time.process_time() - cpu_s) / max(1, taken) * 1e6


@asynccontextmanager
async def _speakers(speech: Speech) -> AsyncIterator[Ask]:
    """The hosts' process, and a way to tell it something; it ends with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "outlive.bench.speakers",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    write, read = process.stdin, process.stdout

    async def ask(command: dict[str, Any]) -> Spoken:
        write.write(json.dumps(command).encode() + b"\n")
        async with asyncio.timeout(ENDED_S):
            line = await read.readline()
        if not line:
            raise Failed("The process that speaks for the hosts has ended.")
        return Spoken(**json.loads(line))

    try:
        write.write(json.dumps(asdict(speech)).encode() + b"\n")
        yield ask
    finally:
        write.close()
        try:
            async with asyncio.timeout(5.0):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _until(holds: Callable[[], bool], within_s: float, otherwise: str) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            raise Failed(f"The bench came to no end: {otherwise} within {within_s:g} s.")
        await asyncio.sleep(POLL_S)


def _dropped(port: int) -> int:
    """How many datagrams found no room in the socket of this port, by the kernel's count (proc_net_udp)."""
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        words = line.split()
        if words[1].endswith(f":{port:04X}"):
            return int(words[-1])
    return 0


def reach(rows: tuple[Row, ...], hosts: int) -> list[dict[str, Any]]:
    """Each figure that the project set itself, with what was measured and its limit, and whether it holds."""
    first, last = rows[0], rows[-1]
    growth = last.us_each / first.us_each if first.us_each else None
    wanted = round(hosts / Timing().heartbeat_s * 0.99)  # the speakers' own pace wavers by a hair

    def row(what: str, value: float | None, unit: str, limit: float, at_least: bool = False) -> dict[str, Any]:
        held = value is not None and (value >= limit if at_least else value <= limit)
        side = "at least" if at_least else "at most"
        shown = None if value is None else round(value, 3)
        return {"what": what, "value": shown, "unit": unit, "side": side, "limit": limit, "holds": held}

    return [
        row(f"heartbeats accepted, {last.hosts} hosts", last.per_second, "a second", wanted, at_least=True),
        row("receiving them", last.cores, "of a processor", LIMIT_CORES),
        row(f"one heartbeat, {last.hosts} hosts to {first.hosts}", growth, "times", LIMIT_GROWTH),
        row("wrong verdicts, all sizes", sum(each.wrong for each in rows), "", 0),
    ]


def told(rows: tuple[Row, ...], hosts: int) -> dict[str, Any]:
    """The bench as one object."""
    listed = [{**_rounded(asdict(each)), "to_bare": round(each.to_bare, 2)} for each in rows]
    return {"rows": listed, "reach": reach(rows, hosts)}


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    def short(value: Any) -> Any:
        return [round(each, 3) for each in value] if isinstance(value, tuple) else round(value, 3)

    return {name: short(value) for name, value in values.items()}
