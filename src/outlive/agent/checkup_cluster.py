"""Checks of what a host was set up with: its file, key, certificates, store, datastores and ports.

Nothing is changed: the store is read, a datastore gets one small file for as long as it takes to time the writing of
it. Everything that may hang does so in a process of its own.
"""

import asyncio
import contextlib
import datetime
import errno
import os
import socket
import stat
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from outlive.cluster import mirror
from outlive.cluster import records as rec
from outlive.config.agent_file import AgentConfig, DatastoreFolder
from outlive.config.store_address import EtcdAddress
from outlive.datastore.datastore import Datastore, open_datastore
from outlive.runtime import cgroup
from outlive.store.base import Listing
from outlive.store.sqlite import SqliteStore
from outlive.wire.seal import Seal

from . import checkup_etcd, facts, presence
from .finding import Finding, failed, ok, warning

STORE_S = 5.0
STORE_STALE_S = 10.0
SYNC_S = 5.0
SYNC_SLOW_S = 0.5
KILLED_S = 1.0
LITTLE_ROOM_BYTES = 64 * 1024 * 1024
EXPIRES_SOON_DAYS = 30
MOST_TOLD = 5

_TIME_A_SYNC = """
import os, sys, time
path, worst = sys.argv[1], 0.0
fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DSYNC | os.O_NOFOLLOW, 0o600)
try:
    for _ in range(5):
        began = time.monotonic()
        os.pwrite(fd, bytes(4096), 0)
        worst = max(worst, time.monotonic() - began)
finally:
    os.unlink(path)
print(worst)
"""
"""In a process of its own, since a datastore may hang for ever."""


@dataclass(frozen=True, slots=True)
class Member:
    """A host that was set up: what its file says, and the hosts' addresses once the store was read."""

    config: AgentConfig
    addresses: dict[str, str] = field(default_factory=dict)

    def key(self) -> Finding:
        """The cluster's key."""
        path = self.config.cluster.key_file
        facts.cluster_key(path)
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            return warning("cluster-key", f"{path} can be read by others than root", f"chmod 600 {path}")
        return ok("cluster-key", f"{path} holds one")

    def certificates(self) -> Finding:
        """This host's certificate: whose, by whom, until when."""
        tls = self.config.tls
        if tls is None:
            return warning("certificates", "there is no [tls] in the agent's file: no logs of other hosts",
                           "give this host its certificate")  # fmt: skip
        try:
            authority = x509.load_pem_x509_certificate(tls.ca.read_bytes())
            certificate = x509.load_pem_x509_certificate(tls.certificate.read_bytes())
            key = load_pem_private_key(tls.key.read_bytes(), None)
            certificate.verify_directly_issued_by(authority)
        except (InvalidSignature, ValueError, TypeError) as error:
            why = str(error) or "the authority did not sign the certificate"
            return failed("certificates", f"they cannot be used: {why}", "issue this host's certificate anew")
        plain = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        if key.public_key().public_bytes(*plain) != certificate.public_key().public_bytes(*plain):
            return failed("certificates", f"{tls.key} is not the key of {tls.certificate}", "put the right files there")
        ending = min(certificate, authority, key=lambda each: each.not_valid_after_utc)
        first, whose = ending.not_valid_after_utc, ending.subject.rfc4514_string()
        days = (first - datetime.datetime.now(datetime.UTC)).days
        if days < 0:
            return failed("certificates", f"{whose} ended on {first:%Y-%m-%d}", "issue it anew")
        if days < EXPIRES_SOON_DAYS:
            return warning("certificates", f"{whose} ends on {first:%Y-%m-%d}, in {days} days", "issue it anew soon")
        return ok("certificates", f"signed by the cluster's authority; the first to end does on {first:%Y-%m-%d}")

    def cgroup_root(self) -> Finding:
        """Where workloads get their control groups, if the file names a place."""
        root = self.config.cgroup_root
        if root is None:
            return ok("cgroup-root", "found by the agent")
        unified = cgroup.parse_mountinfo(Path("/proc/self/mountinfo").read_text(encoding="utf-8")).unified
        if unified is None or not root.is_relative_to(unified):
            fix = f"name one below {unified}, or none" if unified else "mount control groups of version 2"
            return failed("cgroup-root", f"{root} is in no control groups of version 2", fix)
        return ok("cgroup-root", str(root))

    def room(self) -> Finding:
        """Whether the agent's own folder has room for its journal and logs."""
        told = os.statvfs(self.config.data_folder)
        free_bytes = told.f_bavail * told.f_frsize
        found = f"{_size(free_bytes)} free in {self.config.data_folder}"
        if free_bytes < LITTLE_ROOM_BYTES:
            return warning("room", found, "free some: without room for its journal a host takes on nothing new")
        return ok("room", found)

    async def store(self) -> list[Finding]:
        """The store, how fresh it is, and whether every record in it can be read."""
        address = self.config.store_address
        if isinstance(address, EtcdAddress):
            found, listing = await checkup_etcd.store(self.config, address)
            return [*found, *self._contents(listing)] if listing is not None else found
        path = address.path
        if not path.exists():
            return [failed("store", f"there is none at {path}", "make it with `outlive up`")]
        changed_ago_s = max(0.0, time.time() - _changed_at(path))
        store = await SqliteStore.open(path, timeout_s=STORE_S)
        try:
            listing = await store.list("", timeout_s=STORE_S)
        finally:
            await store.close(timeout_s=STORE_S)
        about = f"{path}: revision {listing.revision}, {len(listing.keys)} keys, last changed {_age(changed_ago_s)} ago"
        found = [ok("store", about)]
        acts = presence.agent_pid(self.config.run_folder) is not None
        if acts and changed_ago_s > STORE_STALE_S:
            found = [warning("store", f"{about}, though an agent runs here", "see the agent's log for why")]
        return [*found, *self._contents(listing)]

    def _contents(self, listing: Listing) -> list[Finding]:
        """Whose store it is, and whether all of it can be read."""
        found: list[Finding] = []
        picture = mirror.snapshot(mirror.Mirror(), listing.revision, listing.keys, 0.0)
        self.addresses.update((name, entry.record.address) for name, entry in picture.hosts.items())
        if picture.cluster is None or picture.cluster.record.id != self.config.cluster.id:
            whose = picture.cluster.record.id if picture.cluster else "no cluster"
            fix = "name the right store in the agent's file, or make this cluster's record with `outlive up`"
            found.append(failed("cluster", f"the store is of {whose}, this host of {self.config.cluster.id}", fix))
        return [*found, *_records(picture)]

    async def datastore(self, folder: DatastoreFolder) -> list[Finding]:
        """One datastore: marker, room, the list of protected workloads, and how long a synced write takes."""
        id = f"datastore.{folder.name}"
        seal = Seal(self.config.cluster.id, facts.cluster_key(self.config.cluster.key_file))
        found = []
        async with open_datastore(folder.name, folder.path, self.config.host, seal) as datastore:
            space = await datastore.space()
            percent = 100 * space.free_bytes / max(1, space.total_bytes)
            told = f"{folder.path} is this cluster's; {_size(space.free_bytes)} free ({percent:.0f} %)"
            little = space.free_bytes < LITTLE_ROOM_BYTES
            found.append(warning(id, told, "free some room there") if little else ok(id, told))
            found.append(await self._protected(id, datastore))
        found.append(await _sync(id, folder.path, self.config.host))
        return found

    async def _protected(self, id: str, datastore: Datastore) -> Finding:
        listed = await datastore.read_protected()
        if listed is None:
            return ok(f"{id}.protected", "no list of protected workloads was written yet")
        count = len(listed.workloads)
        return ok(f"{id}.protected", f"the list of protected workloads can be read; {count} are on it")

    def ports(self) -> list[Finding]:
        """The heartbeat port and the peers' port: free, or this host's own agent's."""
        runs = presence.agent_pid(self.config.run_folder) is not None
        kinds = [("port", socket.SOCK_DGRAM, self.config.port, "UDP")]
        if self.config.tls is not None:
            kinds.append(("peer-port", socket.SOCK_STREAM, self.config.peer_port, "TCP"))
        return [_port(id, kind, self.config.address, number, name, runs) for id, kind, number, name in kinds]


def _records(picture: mirror.Mirror) -> list[Finding]:
    if not picture.bad:
        count = len(picture.hosts) + len(picture.workloads) + len(picture.placements)
        return [ok("records", f"every record can be read; {count} of hosts, workloads and placements")]
    worst = sorted(picture.bad.items())
    found = [failed("records", str(rec.BadRecord(key, why)), rec.BadRecord(key, why).remedy) for key, (_, why) in worst]
    return found[:MOST_TOLD]


def _changed_at(path: Path) -> float:
    times = []
    for each in (path, path.with_name(path.name + "-wal")):
        with contextlib.suppress(FileNotFoundError):
            times.append(each.stat().st_mtime)
    return max(times, default=0.0)


def _port(id: str, kind: socket.SocketKind, address: str, number: int, name: str, runs: bool) -> Finding:
    where = f"{name} port {number} of {address}"
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as trial:
        try:
            if kind == socket.SOCK_STREAM:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((address, number))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                if runs:
                    return ok(id, f"{where} is this host's agent's")
                return failed(id, f"{where} is taken by another program", f"end it (ss -lpn), or change `{id}`")
            if error.errno == errno.EADDRNOTAVAIL:
                return failed(
                    id, f"{address} is none of this host's addresses", "correct `address` in the agent's file"
                )
            raise
    return ok(id, f"{where} is free")


async def _sync(id: str, folder: Path, host: str) -> Finding:
    """Time synced writes in a process of its own. A slot is written like this every second."""
    id = f"{id}.sync"
    trial = folder / f".{host}.doctor.new"
    async with _timing(trial) as process:
        try:
            out, _ = await asyncio.wait_for(process.communicate(), SYNC_S)
            worst_s = float(out)
        except TimeoutError:
            return failed(id, f"a synced write is not done after {SYNC_S:g} s", "look at the storage and the way to it")
        except ValueError:
            return failed(id, f"{folder} cannot be written", "let root write there, and see that there is room")
    found = f"the slowest of five synced writes took {worst_s * 1000:.1f} ms"
    if worst_s > SYNC_SLOW_S:
        return warning(id, f"{found}; a slot is written every second", "use faster storage, or lengthen `slot_s`")
    return ok(id, found)


@contextlib.asynccontextmanager
async def _timing(trial: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", _TIME_A_SYNC, str(trial),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        # One that the kernel holds is left behind: it ends when its storage comes back.
        with contextlib.suppress(ProcessLookupError, TimeoutError):
            process.kill()
            await asyncio.wait_for(process.wait(), KILLED_S)


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _age(seconds: float) -> str:
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} s"
