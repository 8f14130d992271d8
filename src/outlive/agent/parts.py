"""Putting an agent together: every part that it needs, opened in order and let go of in the reverse.

Opening the store waits for as long as it takes, since nothing can be done without it; a store that is not this
cluster's ends the agent. What the parts do is told in their own files.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from outlive.api.figures import Figures
from outlive.cluster import records as rec
from outlive.cluster.host import Host
from outlive.cluster.mirror import Mirror
from outlive.cluster.timing import Timing
from outlive.cluster.transaction import Put, Transaction, absent
from outlive.cluster.watchdog import longest_timeout_s
from outlive.config.agent_file import AgentConfig
from outlive.datastore.datastore import Datastore, open_datastore
from outlive.errors import OutliveError, RefusedForSafety
from outlive.fence.guard import Guard, Listener, Watchdog
from outlive.network.virtual_ip import VirtualIps
from outlive.runtime import cgroup
from outlive.runtime.service import Premises
from outlive.runtime.vm.host import HostFacts
from outlive.runtime.vm.host import find as find_emulator
from outlive.store.base import Store, StoreCorrupt, StoreError, StoreForeign
from outlive.store.boot_clock import boot_time_s
from outlive.store.opening import open_store
from outlive.wire.seal import Seal
from outlive.wire.sequence import Sequences

from . import facts
from .guarding import GuardKeeper
from .log import LineFile
from .measured_store import MeasuredStore
from .neighbours import Identity
from .observe import StoreWatcher
from .record import EventBook, Recorder
from .seating import Floor
from .wiring import Wiring

OPENED_WITHIN_S = 5.0
AGAIN_S = 0.5
FOUNDED_WITHIN_S = 5.0
FIRST_PICTURE_S = 1.0

log = structlog.get_logger()


class WrongCluster(RefusedForSafety):
    """The store is another cluster's than the agent file says."""

    id = "agent.wrong-cluster"

    def __init__(self, ours: str, found: str) -> None:
        super().__init__(
            f"The store belongs to cluster {found}, and this host to cluster {ours}.",
            remedy="name the right store, or the right cluster, in the agent file",
        )


@dataclass(frozen=True, slots=True)
class Parts:
    """What an agent is made of, before anything of it runs."""

    config: AgentConfig
    host: Host
    identity: Identity
    seal: Seal
    sequences: Sequences
    store: Store
    book: EventBook
    watcher: StoreWatcher
    recorder: Recorder
    guard: GuardKeeper
    datastores: dict[str, Datastore]
    addresses: VirtualIps
    premises: Premises
    wiring: Wiring
    floor: Floor
    figures: Figures


@asynccontextmanager
async def opened(config: AgentConfig) -> AsyncIterator[Parts]:
    """Open every part. Raises WrongCluster and other errors that starting again would not mend."""
    # Asking QEMU takes a moment that a restarted agent does not have to spare: its claim runs on.
    emulator = asyncio.create_task(_emulator())
    host = facts.member(config)
    seal = Seal(config.cluster.id, facts.cluster_key(config.cluster.key_file))
    mounts = await asyncio.to_thread(cgroup.find_or_mount)
    assert mounts.unified is not None
    root = config.cgroup_root or mounts.unified / "outlive" / "workloads"
    sequences = await asyncio.to_thread(Sequences, config.data_folder / "sequence", time.time_ns() // 1000)
    async with AsyncExitStack() as stack:
        figures = Figures()
        store = MeasuredStore(await _store(config), figures)
        stack.push_async_callback(store.close)
        lines = LineFile(config.data_folder / "events.log")
        stack.callback(lines.close)
        datastores = {
            each.name: await stack.enter_async_context(open_datastore(each.name, each.path, config.host, seal))
            for each in config.datastores
        }
        addresses = VirtualIps(remembered_in=config.run_folder / "addresses")
        await stack.enter_async_context(addresses)
        book = EventBook()
        watcher = StoreWatcher(store, book, boot_time_s)
        wiring = await stack.enter_async_context(Wiring(config.host, config.address, lambda: watcher.mirror))
        yield Parts(
            config=config,
            host=host,
            identity=Identity(config.cluster.id, config.host, facts.boot_id()),
            seal=seal,
            sequences=sequences,
            store=store,
            book=book,
            watcher=watcher,
            recorder=Recorder(lines),
            guard=GuardKeeper(
                lambda listener: _guard(config, root, listener),
                boot_time_s,
                watchdog=_watchdog(config),
            ),
            datastores=datastores,
            addresses=addresses,
            premises=Premises(cgroup.Tree(root, mounts), config.run_folder / "modules", config.data_folder / "logs"),
            wiring=wiring,
            floor=_floor(config, wiring, *await emulator),
            figures=figures,
        )


async def _emulator() -> tuple[HostFacts | None, str]:
    """What QEMU there is; else why none: a host without is a host all the same."""
    try:
        return await find_emulator(), ""
    except OutliveError as error:
        log.info("emulator.not_found", reason=error.cause or str(error))
        return None, error.cause or str(error)


def _floor(config: AgentConfig, wiring: Wiring, facts: HostFacts | None, lacking: str) -> Floor:
    """What machines stand on."""
    return Floor(
        cluster=config.cluster.id,
        host=config.host,
        address=config.address,
        folder=config.vm_folder,
        ram=config.ram_folder,
        run=config.run_folder / "v",
        wires=wiring,
        facts=facts,
        lacking=lacking,
        tls=config.tls,
    )


def _guard(config: AgentConfig, root: Path, listener: Listener) -> Guard:
    """The guard's own cgroup lies beside that of the workloads, so that no kill of theirs reaches it."""
    own = root.parent / "guard"
    own.mkdir(parents=True, exist_ok=True)
    socket, log = config.run_folder / "guard.sock", config.data_folder / "guard.log"
    return Guard(socket, log, listener, cgroup=own, watchdog=_watchdog(config))


def _watchdog(config: AgentConfig) -> Watchdog | None:
    device = config.fencing.watchdog
    if device is None:
        return None
    return Watchdog(device, config.fencing.watchdog_timeout_s, longest_timeout_s(config.timing))


async def _store(config: AgentConfig) -> Store:
    told = ""
    while True:
        try:
            return await open_store(config, timeout_s=OPENED_WITHIN_S)
        except (StoreForeign, StoreCorrupt):
            raise
        except StoreError as error:
            if str(error) != told:
                told = str(error)
                log.error("store.not_opened", store=str(config.store_address), reason=told, remedy=error.remedy)
            await asyncio.sleep(AGAIN_S)


async def first_picture(parts: Parts) -> Mirror:
    """The store as it stands, or an empty picture when it does not answer in a moment; founds a new cluster."""
    watcher = parts.watcher
    try:
        async with asyncio.timeout(FIRST_PICTURE_S):
            await watcher.read()
    except (StoreError, TimeoutError) as error:
        log.warning("store.not_read", reason=str(error) or f"no answer within {FIRST_PICTURE_S:g} s")
        return watcher.mirror
    if watcher.mirror.cluster is None and rec.CLUSTER not in watcher.mirror.bad:
        await found(parts)
    check_cluster(parts.config, watcher.mirror)
    seen = watcher.mirror.claims.get(parts.config.host)
    if seen is not None:
        await asyncio.to_thread(parts.sequences.raise_to, seen.record.heartbeats)
    return watcher.mirror


async def found(parts: Parts) -> None:
    """Write the cluster's record where there is none: the first agent of a new cluster founds it."""
    record = rec.ClusterRecord(parts.config.cluster.id, timing=parts.config.timing)
    founding = Transaction((absent(rec.CLUSTER),), (Put(rec.CLUSTER, rec.encode(record)),))
    try:
        result = await parts.store.transact(founding, timeout_s=FOUNDED_WITHIN_S)
        if result.succeeded:
            log.info("cluster.founded", cluster=record.id)
        await parts.watcher.read()
    except StoreError as error:
        log.warning("cluster.not_founded", reason=str(error))


def check_cluster(config: AgentConfig, mirror: Mirror) -> None:
    """Raise WrongCluster when the store's record is another cluster's."""
    if mirror.cluster is not None and mirror.cluster.record.id != config.cluster.id:
        raise WrongCluster(config.cluster.id, mirror.cluster.record.id)


def timing_of(config: AgentConfig, mirror: Mirror) -> Timing:
    """The cluster's intervals, as its record has them."""
    return mirror.cluster.record.timing if mirror.cluster is not None else config.timing
