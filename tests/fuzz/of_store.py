"""What stands in the store, as etcd tells it and as records; and the packages that hosts give each other.

The seeds of records are what simulated clusters wrote. A record that is believed is then put into the picture of a
leader and of a node that were harvested from there, since "raises nothing" is their promise too.
"""

import io
import json
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import zstandard

from outlive.cluster import events as ev
from outlive.cluster import leader, mirror, node
from outlive.cluster import records as rec
from outlive.cluster.commands import Command
from outlive.cluster.fence import FenceState
from outlive.cluster.leader_state import LeaderState
from outlive.cluster.node_state import NodeState
from outlive.cluster.overlay import Network
from outlive.cluster.package import Manifest
from outlive.cluster.transaction import Delete, KeyValue
from outlive.depot import installed
from outlive.depot.archive import Limits, build_archive, read_archive
from outlive.depot.errors import PackageInvalid
from outlive.depot.package import manifest_bytes, package_id, read_manifest
from outlive.depot.packing import size_told
from outlive.depot.shelf import Shelf
from outlive.sim.chance import draw
from outlive.sim.parts import Machines
from outlive.sim.world import World
from outlive.store import etcd_messages as say
from outlive.store.base import StoreError
from outlive.store.etcd_exchange import as_raised
from outlive.store.etcd_watch import Assembly, key_value

from .target import Target

SEED, UNTIL_S = 38, 70.0
"""A world of the simulator in which nearly every kind of record is written within this time."""


@dataclass
class Harvest:
    """What a simulated cluster wrote, and a moment of two machines of one host. The longest value of each kind."""

    values: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    leader: LeaderState | None = None
    node: NodeState | None = None

    def changed(self, revision: int, changes: tuple[KeyValue | Delete, ...]) -> None:
        """As a watcher of the store."""
        for change in changes:
            if isinstance(change, KeyValue):
                kind = change.key.partition("/")[0]
                if len(change.value) >= len(self.values.get(kind, ("", b""))[1]):
                    self.values[kind] = (change.key, change.value)

    def leader_step(self, state: LeaderState, event: ev.Event) -> tuple[LeaderState, tuple[Command, ...]]:
        if state.office_since is not None:
            self.leader = state
        return leader.step(state, event)

    def node_step(self, state: NodeState, event: ev.Event) -> tuple[NodeState, tuple[Command, ...]]:
        if state.mirror.placements:
            self.node = state
        return node.step(state, event)


@cache
def harvest() -> Harvest:
    """Run the world once."""
    found, random = Harvest(), Random(SEED)
    setup, planned = draw(random)
    machines = Machines(node_step=found.node_step, leader_step=found.leader_step)
    world = World(replace(setup, end_s=UNTIL_S), planned, random, machines=machines)
    world.parts.store.watchers.append(found)
    world.run()
    return found


SPARE: tuple[tuple[str, rec.Record], ...] = (
    ("cluster", rec.ClusterRecord("0123456789abcdef")),
    ("networks/lab", Network("lab", 9, subnet="2001:db8::/64")),
    ("fences/h0", rec.FenceRecord("h0", 3, FenceState.PROVEN, "power", "h1", "it said that it is off")),
    ("events/7-a", rec.EventRecord("7-a", "workload.placed", "h0", 1.5, 1_700_000_000_000, "h0", "w0", 2)),
    ("pruned", rec.PrunedRecord(7, "events/7-a")),
    ("requests/ab", rec.RequestRecord("ab", "cd", "h0", 1_700_000_000_000, 200, {"changed": True})),
)
"""What that world did not write."""


def record_seeds() -> list[bytes]:
    spare = [(key, rec.encode(record)) for key, record in SPARE]
    return [key.encode() + b"\n" + value for key, value in (*harvest().values.values(), *spare)]


def judge_record(data: bytes) -> None:
    key, _, value = data.partition(b"\n")
    try:
        name = key.decode()
    except UnicodeDecodeError:
        return
    record = rec.decode(name, value)
    if record is None:
        return
    assert rec.decode(name, rec.encode(record)) == record
    found = harvest()
    assert found.leader is not None
    assert found.node is not None
    for state, step in ((found.leader, leader.step), (found.node, node.step)):
        now = state.mirror.revision + 1
        picture = mirror.changed(state.mirror, now, [KeyValue(name, value, now, now)], state.at)
        after: Any = state
        for event in (ev.StoreMoved(state.at, picture), ev.Tick(state.at + 1), ev.Tick(state.at + 60)):
            after, _ = step(after, event)


HEADER = {"cluster_id": "7", "member_id": "1", "revision": "9", "raft_term": "2"}
KV = {"key": "L3AvYQ==", "value": "eyJhIjoxfQ==", "create_revision": "3", "mod_revision": "9", "lease": "5"}
ANSWERS: tuple[dict[str, Any], ...] = (
    {"header": HEADER, "kvs": [KV, KV], "more": True, "count": "2"},
    {"header": HEADER, "succeeded": True},
    {"header": HEADER, "ID": "5", "TTL": "4"},
    {"header": HEADER, "version": "3.4.23", "dbSize": "1", "leader": "1", "raftIndex": "3", "errors": ["NOSPACE"]},
    {"header": HEADER, "members": [{"ID": "1", "name": "m", "clientURLs": ["http://[::1]:2379"]}]},
    {"header": HEADER, "alarms": [{"memberID": "1", "alarm": "NOSPACE"}]},
    {"result": {"header": HEADER, "created": True}},
    {"result": {"header": HEADER, "events": [{"kv": KV}, {"type": "DELETE", "kv": KV}], "fragment": True}},
    {"result": {"header": HEADER, "canceled": True, "compact_revision": "8", "cancel_reason": "compacted"}},
    {"error": {"grpc_code": 14, "message": "etcdserver: no leader", "http_code": 503}},
    {"error": "etcdserver: permission denied", "code": 7},
    {"header": HEADER, "token": "a.1"},
)  # fmt: skip
KINDS = (
    say.Ranged, say.Transacted, say.Granted, say.KeptAlive, say.Done, say.Watched, say.Status, say.Members, say.Alarms,
    say.Token,
)  # fmt: skip


def judge_etcd(data: bytes) -> None:
    for kind in KINDS:
        for read in (say.read, say.read_streamed):
            with suppress(say.Garbled):
                answer = read(data, kind)
                if isinstance(answer, say.Watched):
                    assembly = Assembly(b"/p/", "", 5)
                    with suppress(StoreError):
                        assembly.take(answer)
                        assembly.take(answer)
                if isinstance(answer, say.Ranged):
                    with suppress(StoreError):
                        [key_value(kv, b"/p/") for kv in answer.kvs]
                if isinstance(answer, say.Fault):
                    as_raised(answer)
    with suppress(say.Garbled):
        as_raised(say.read_fault(data))


FILES = {"bin/run": b"#!/bin/sh\nexec sleep 1000\n", "etc/web.conf": b"port = 80\n" * 600}
PACKAGE = """name = "web"
version = "1.0.0"
start.command = ["bin/run"]
[dependencies]
base = "^1.2"
"""


@cache
def archive() -> bytes:
    """A package as it travels."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        for path, content in FILES.items():
            (here / "files" / path).parent.mkdir(parents=True, exist_ok=True)
            (here / "files" / path).write_bytes(content)
        (here / "package.toml").write_text(PACKAGE)
        into = io.BytesIO()
        build_archive(here, into)
        return into.getvalue()


def unpacked(raw: bytes) -> bytes:
    return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(raw)).read()


def manifest() -> bytes:
    return unpacked(archive())[512:].partition(b"\0")[0]


def judge_archive(data: bytes) -> None:
    """As it comes, and as what a well-meaning packer would make of the very tar archive."""
    for raw in (data, zstandard.ZstdCompressor(level=1).compress(data)):
        with tempfile.TemporaryDirectory() as folder:
            shelf = Shelf(Path(folder))
            try:
                read_archive(io.BytesIO(raw), shelf, Limits(bytes=1 << 20))
            except PackageInvalid:
                assert not shelf.ids(), "nothing is left of what was refused"


def judge_manifest(data: bytes) -> None:
    size_told(data[:18])
    try:
        found = read_manifest(data)
    except PackageInvalid:
        # Written in the one way, so that only what it says can be wrong.
        found = read_manifest(msgspec.json.encode(msgspec.json.decode(data, type=Manifest), order="deterministic"))
    assert read_manifest(manifest_bytes(found), id=package_id(found)) == found
    list(found.wants)


def judge_mark(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / installed.MARK).write_bytes(data)
        installed.read_installed(Path(folder))


def mark() -> bytes:
    return installed.mark_bytes(installed.Installed("", read_manifest(manifest()), Path("/"), {"base": "1.2.0-abc"}))


TARGETS = (
    Target("store-record", judge_record, record_seeds, (rec.BadRecord,), text=True),
    Target(
        "store-etcd", judge_etcd, lambda: [json.dumps(answer).encode() for answer in ANSWERS], (say.Garbled,), text=True
    ),
    Target("package-archive", judge_archive, lambda: [archive(), unpacked(archive())], most_bytes=1 << 18),
    Target(
        "package-manifest", judge_manifest, lambda: [manifest()],
        (PackageInvalid, msgspec.MsgspecError, UnicodeDecodeError, RecursionError), text=True,
    ),
    Target("package-mark", judge_mark, lambda: [mark()], text=True),
)  # fmt: skip
