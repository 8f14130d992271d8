"""What clients and peers send by HTTP, what guests, guards and the network say, and what agents left on their disk."""

import asyncio
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from starlette.requests import Request

from outlive.agent import journal, note, peers
from outlive.api import boards, bodies, logs, paging, relaying, streams
from outlive.api.app import GROUPS
from outlive.api.checkpoints import checked_checkpoint
from outlive.api.declaring import Declared, declared_in, take
from outlive.client import connection
from outlive.cluster.commands import Journal
from outlive.config.workload_file import parse_workload
from outlive.errors import ClusterUnreachable, UsageInvalid, from_problem
from outlive.fence import guard
from outlive.network import arp, fdb, links, neighbour, tap
from outlive.network.errors import PacketRefused
from outlive.replication import qmp_line
from outlive.runtime import cgroup, runner
from outlive.runtime import logs as module_logs
from outlive.runtime.vm import guest_agent

from .target import Target

REQUEST_LINES = 4
"""Query, If-Match, Last-Event-ID and path parameter; all behind them is the body."""


@cache
def routes() -> tuple[Declared, ...]:
    return tuple(declared for group in GROUPS for _, _, declared in declared_in(group))


@cache
def body_kinds() -> tuple[Any, ...]:
    return tuple({declared.body for declared in routes()} - {None, bytes})


REQUESTS: tuple[tuple[bytes, bytes], ...] = (
    (b"lines=20&follow=true&modules=main,side", b""),
    (b"limit=10&cursor=ZXZlbnRzOmE&workload=web&host=a", b'{"desired":"stopped","dry_run":true}'),
    (
        b"source=web.toml&dry_run=true&force=false&upgrade=true&retry_failed=0",
        b'{"kind":"migrate","workload":"w","target":"b"}',
    ),
    (b"after=7:events/7-a&last=10", b'{"lose":["a"],"lose_sites":["north"]}'),
    (b"replay=1e3&checkpoint=g1&copies=3", b'{"components":[["00",9]],"offset":0}'),
    (b"", b'{"settings":{"retry_minutes":"0,2"},"frozen":true}'),
    (b"", b'{"key":"workloads/w","value":"e30="}'),
    (b"force=true", b'{"name":"lab","vni":7,"subnet":"10.0.0.0/24","button":"reset","host":"b"}'),
)


def requests() -> list[bytes]:
    return [query + b'\n"17"\n7:events/7-a\nweb@1.2.3\n' + content for query, content in REQUESTS]


def judge_request(data: bytes) -> None:
    """What a request says, as each path reads it."""
    query, match, mark, name, content = (data.split(b"\n", REQUEST_LINES) + [b""] * 5)[:5]
    headers = [(b"if-match", match), (b"last-event-id", mark)]
    for declared in routes():
        scope = {
            "type": "http",
            "method": declared.method,
            "path": declared.path,
            "query_string": query,
            "headers": headers,
        }
        with suppress(UsageInvalid):
            take(Request(scope), declared)
    reads: list[Callable[[], object]] = [
        lambda: bodies.if_revision(Request(scope)),
        lambda: streams.mark(mark.decode("latin-1")),
        lambda: paging.ascending("packages", ["a", "b"], paging.Page(5, name.decode("latin-1"))),
        lambda: checked_checkpoint(name.decode("latin-1")),
        lambda: parse_workload(content, name.decode("latin-1")),
        *(partial(bodies.decoded, content, kind) for kind in body_kinds()),
    ]
    for read in reads:
        with suppress(UsageInvalid):
            read()


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 23\r\nRetry-After: 1\r\n\r\n"
TOLD = (
    b'{"q35":["pc-q35-7.2"]}', b'{"title":"No.","detail":"x","id":"a.b","exit_code":3,"remedy":"do"}',
    b'{"commands":[]}', b'{"boards":{"q35":"pc-q35-7.2"}}', b'{"unix_ms":7,"text":"x"}',
)  # fmt: skip


async def asked(data: bytes) -> None:
    reader = asyncio.StreamReader(limit=peers.MOST_LINE_BYTES)
    reader.feed_data(data)
    reader.feed_eof()
    _, headers = await peers._answered(reader)
    peers._length(headers.get("content-length"))


@cache
def loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def judge_answer(data: bytes) -> None:
    """The head of what another agent answers, and its content as different askers take it."""
    with suppress(ValueError):  # what `ask` takes it for
        loop().run_until_complete(asked(data))
    content = data.partition(b"\r\n\r\n")[2] or data
    for kind in (dict[str, Any], boards.Boards, dict[str, int]):
        with suppress(ClusterUnreachable):
            relaying.told(content, kind)
    logs._when(content)
    from_problem(connection._problem(content))


PACKETS = (
    arp.probe(b"\x02" + bytes(5), IPv4Address("10.0.0.9")),
    neighbour.announcement(b"\x02" + bytes(5), IPv6Address("fd00::7"), router=False),
    bytes.fromhex("34000000100000000100000000000000000001000200000043100100ffffffff")
    + b"\x0a\x00\x03\x00eth0\0\0\0\0"
    + bytes(8),
)


def judge_packet(data: bytes) -> None:
    """A packet from the network, or one of the kernel's."""
    parsers: tuple[Callable[[bytes], object], ...] = (
        arp.parse, neighbour.parse, links.parse, lambda raw: list(fdb.parse(raw)), fdb.read_row, fdb.read_error,
    )  # fmt: skip
    for parse in parsers:
        with suppress(PacketRefused):
            parse(data)
    tap.read_alias(data.decode(errors="replace"))


async def sync(data: bytes) -> None:
    reader = asyncio.StreamReader(limit=guest_agent.MOST_ANSWER_BYTES)
    reader.feed_data(data)
    reader.feed_eof()
    await guest_agent._repeated(reader, 7)


SAID = (
    b'\xff{"return": 7}\n', b"1700000000000 o hello", b"36 25 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    b'{"timestamp":{"seconds":1,"microseconds":2},"event":"STOP","data":{"a":[1]}}',
    b"HELLO 1 pid=7 memory=locked priority=rr oom=-1000 watchdog=2s:softdog",
)  # fmt: skip


def judge_said(data: bytes) -> None:
    """What a guest's agent and QEMU answer, what a module wrote, what the kernel mounts, and how a guard greets."""
    with suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        loop().run_until_complete(sync(data))
    module_logs.parsed("main", data)
    cgroup.parse_mountinfo(data.decode(errors="replace"))
    with suppress(qmp_line.QemuSilent):
        qmp_line.read(data)
    with suppress(guard.GuardLost):
        guard._hello(data.decode(errors="replace"))


HELD = journal.encoded(Journal("run", 5, 6))
LEFT = (
    b'{"generation":3,"data":{"shared":"/srv"},"addresses":["10.0.0.9/24"],"package":"","variables":{"A":"b"}}',
    b'{"boot_id":"x","runner_pid":3,"runner_start_ticks":4,"child_pid":5,"child_start_ticks":6}',
    b'{"code":1,"signal":null,"boottime_ns":12345,"emptied":true,"error":""}',
)


def judge_left(data: bytes) -> None:
    """What an agent or a runner left on the disk for the next agent."""
    body = data.partition(b"\n")[2]
    digest = blake2b(body, digest_size=16).hexdigest().encode()
    for content in (data, b"outlive-journal 1 %d %s\n" % (len(body), digest) + body):
        with suppress(journal.JournalBad):
            journal.decoded(Path("journal"), content)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("note", "state.json", "exit.json"):
            (Path(folder) / name).write_bytes(data)
        note.read_note(Path(folder))
        runner._read_state(Path(folder))
        runner._read_exit(Path(folder))


TARGETS = (
    Target("api-request", judge_request, requests, text=True),
    Target("peer-answer", judge_answer, lambda: [ANSWER + told for told in TOLD], text=True),
    Target("network-packet", judge_packet, lambda: PACKETS, most_bytes=2048),
    Target("host-said", judge_said, lambda: SAID, text=True),
    Target("host-left", judge_left, lambda: [HELD, *LEFT], text=True),
)
