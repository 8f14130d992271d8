"""Checks of a store in etcd: who of its members answers, how they are, and how many of them may be lost.

Nothing is changed there but for one lease, which is granted and given back at once to see how long it is. Each member
that the agent's file names is asked by itself, since a store that works through one says nothing of the others.
"""

import asyncio
import re
import stat
from pathlib import Path

from outlive.config.agent_file import AgentConfig
from outlive.config.store_address import Endpoint, EtcdAddress
from outlive.store import etcd_messages as say
from outlive.store.base import HistoryKept, Listing, StoreDenied, StoreError
from outlive.store.boot_clock import boot_time_s
from outlive.store.etcd import EtcdStore
from outlive.store.etcd_compaction import Compaction
from outlive.store.etcd_exchange import Refusal
from outlive.store.etcd_faults import PERMISSION_DENIED
from outlive.store.etcd_gateway import Gateway, Kind
from outlive.store.opening import store_login, store_tls

from .finding import Finding, failed, ok, warning

MEMBER_S, STORE_S = 3.0, 5.0
OLDEST = (3, 4, 0)
REVOKES_LATE = {(3, 4): (3, 4, 31), (3, 5): (3, 5, 13)}
"""From these on a leader that stood still does not end leases that another one has kept alive meanwhile."""

FULL_RATIO_BYTES = 1_500 * 1024 * 1024
SLOW_S = 0.3
NOTHING_BEFORE = 1
"""The revision of an empty etcd: what is before it nobody has."""


async def store(config: AgentConfig, address: EtcdAddress) -> tuple[list[Finding], Listing | None]:
    """What there is to say of the members and the store, and what is in it, if that could be read."""
    found = _password(config)
    gateway = Gateway(address, store_tls(config), store_login(config))
    try:
        told = await asyncio.gather(*(_member(gateway, endpoint) for endpoint in address.endpoints))
        found += [each for each, _ in told]
        found.append(await _quorum(gateway, [status for _, status in told if status is not None]))
    finally:
        await gateway.close()
    try:
        contents, listing = await _contents(config, address)
    except StoreError as error:
        return [*found, failed("store", str(error), error.remedy or "see the members above")], None
    return [*found, *contents], listing


async def _member(gateway: Gateway, endpoint: Endpoint) -> tuple[Finding, say.Status | None]:
    id = f"store.{endpoint}"
    until = boot_time_s() + MEMBER_S
    try:
        status = await gateway.ask(
            "status", "/v3/maintenance/status", b"{}", say.Status, until=until, kind=Kind.READ, at=endpoint
        )
    except (StoreError, Refusal) as error:
        if isinstance(error, Refusal) and error.fault.code == PERMISSION_DENIED:
            return await _discreet_member(gateway, endpoint)
        cause = getattr(error, "cause", "") or str(error)
        return failed(id, f"{endpoint} does not answer: {cause}", "start that member, or correct `store`"), None
    version = _numbers(status.version)
    about = f"{endpoint} is etcd {status.version}, {status.dbSize / 1024 / 1024:.1f} MiB"
    if version < OLDEST:
        return failed(id, f"{about}; that is too old", "use etcd 3.4 or newer"), status
    if not status.leader:
        return failed(id, f"{about}; it has no leader", "see that most members run and reach each other"), status
    if status.errors:
        return failed(id, f"{about}; it says: {', '.join(status.errors)}", "see docs/store.md"), status
    if status.dbSize > FULL_RATIO_BYTES:
        return warning(id, f"{about}, of 2 GiB by default", "defragment it (etcdctl defrag)"), status
    mended = REVOKES_LATE.get((version[0], version[1]))
    if mended and version < mended:
        about += "; one that stood still may end leases early, which costs a failover and nothing else"
    return ok(id, about), status


async def _discreet_member(gateway: Gateway, endpoint: Endpoint) -> tuple[Finding, say.Status | None]:
    """A member that tells its state to root alone, as those from 3.5.28 and 3.6.9 do: whether it serves can be seen."""
    id = f"store.{endpoint}"
    body = say.range_request(gateway.address.prefix.encode())
    until = boot_time_s() + MEMBER_S
    try:
        found = await gateway.ask("reading", "/v3/kv/range", body, say.Ranged, until=until, kind=Kind.READ, at=endpoint)
    except (StoreError, Refusal) as error:
        return failed(id, f"{endpoint} does not serve: {error}", "see that most members run and reach each other"), None
    status = say.Status(found.header, leader=found.header.member_id)
    return ok(id, f"{endpoint} serves; its version and state it tells this host's user nothing of"), status


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"([0-9]{1,6})\.([0-9]{1,6})\.([0-9]{1,6})", version)
    return tuple(int(each) for each in found.groups()) if found else (0, 0, 0)


async def _quorum(gateway: Gateway, answering: list[say.Status]) -> Finding:
    id = "store.members"
    until = boot_time_s() + MEMBER_S
    try:
        told = await gateway.ask(
            "list of members", "/v3/cluster/member/list", b"{}", say.Members, until=until, kind=Kind.READ
        )
    except (StoreError, Refusal) as error:
        return failed(id, f"etcd does not tell its members: {error}", "see that most members run")
    voting = [member for member in told.members if not member.isLearner]
    well = len({status.header.member_id for status in answering if status.leader and not status.isLearner})
    count, quorum = len(voting), len(voting) // 2 + 1
    about = f"{well} of {count} members answer here; {max(0, well - quorum)} of them may be lost"
    if well < quorum:
        return failed(id, about, "name all members in `store`, and see that they run")
    if count < 3:
        return warning(id, about, "run three members, each where it fails by itself")
    if well < count:
        return warning(id, about, "name all members in `store`, and see that they run")
    if count % 2 == 0:
        return warning(id, f"{about}; an even number bears no more losses than one less", "run 3 or 5 members")
    return ok(id, about)


async def _contents(config: AgentConfig, address: EtcdAddress) -> tuple[list[Finding], Listing | None]:
    began = boot_time_s()
    policy = Compaction(config.store_compaction)
    opened = await EtcdStore.open(
        address, timeout_s=STORE_S, tls=store_tls(config), login=store_login(config), begin=False, compaction=policy
    )
    try:
        listing = await opened.list("", timeout_s=STORE_S)
        took_s = boot_time_s() - began
        wanted_s = config.timing.claim_ttl_s
        lease = await opened.grant_lease(wanted_s, timeout_s=STORE_S)
        asked = boot_time_s()
        await opened.keep_alive(lease.id, timeout_s=STORE_S)
        renewed_s = boot_time_s() - asked
        await opened.revoke(lease.id, timeout_s=STORE_S)
        history = await _history(opened, policy)
    finally:
        await opened.close()
    about = f"{address}: revision {listing.revision}, {len(listing.keys)} keys, read in {took_s * 1000:.0f} ms"
    found = [ok("store", about), history]
    kept = f"a lease of {wanted_s} s is {lease.ttl_s} s long, and kept alive in {renewed_s * 1000:.0f} ms"
    if lease.ttl_s > wanted_s:
        fix = "shorten etcd's election timeout: its shortest lease is half as long again"
        found.append(warning("store.lease", f"{kept}: a dead host is found so much later", fix))
    elif renewed_s > SLOW_S:
        found.append(warning("store.lease", kept, "give etcd's members faster disks or a faster network"))
    else:
        found.append(ok("store.lease", kept))
    return found, listing


async def _history(opened: EtcdStore, policy: Compaction) -> Finding:
    """Whether somebody sees to it that etcd does not grow for ever."""
    id = "store.history"
    if policy is Compaction.NEVER:
        return ok(id, "forgetting old changes is left to etcd (store_compaction = never)")
    try:
        await opened.compact(NOTHING_BEFORE, timeout_s=STORE_S)
    except HistoryKept as error:
        return warning(id, str(error), error.remedy)
    except StoreDenied as error:
        fix = "have etcd do it (--auto-compaction-retention=1h), and write store_compaction = 'never'"
        return warning(id, f"etcd lets this host's user forget nothing, and grows: {error.cause}", fix)
    others = (await opened.tenancy(timeout_s=STORE_S)).others
    about = "the leader has etcd forget what is older than ten minutes"
    return ok(id, f"{about}, also for {others} keys of other programs" if others else about)


def _password(config: AgentConfig) -> list[Finding]:
    if config.store_login is None:
        return []
    path: Path = config.store_login.password_file
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return [warning("store.password", f"{path} can be read by others than root", f"chmod 600 {path}")]
    return [ok("store.password", f"{path} holds the password of {config.store_login.user}")]
