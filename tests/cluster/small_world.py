"""A cluster without faults or delay, for conversations with the machines: everything asked for happens at once.

What a test wants to go wrong it says: a host loses its power, a module fails, a command is swallowed. The simulator
(`outlive.sim`) is where time, loss and faults are played; here a test reads as script and outcome.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from outlive.cluster import leader, mirror, node
from outlive.cluster import records as rec
from outlive.cluster.commands import (
    Command,
    DeclareIsolated,
    DiscardStandby,
    GoAlone,
    GrantLease,
    HandOver,
    Journal,
    KeepAlive,
    LearnTable,
    MigrateTo,
    Pair,
    Prepare,
    PrepareStandby,
    Probe,
    RecordEvent,
    Role,
    SaveJournal,
    SendHeartbeat,
    StartModule,
    TakeCheckpoint,
    TakeOver,
    TearDown,
    Transact,
    WriteSlot,
)
from outlive.cluster.events import (
    AgentStarted,
    CheckpointEnded,
    DatastoreChanged,
    Event,
    HeartbeatReceived,
    LeaseGranted,
    Migrated,
    ModuleChanged,
    Outcome,
    Paired,
    PeerLost,
    Prepared,
    ProbeAnswered,
    SelfIsolated,
    SlotChanged,
    StandbyDiscarded,
    StandbyListening,
    StandbySeeding,
    StandbyWhole,
    StoreMoved,
    TableLearned,
    Tick,
    TookOver,
    TornDown,
    Transacted,
)
from outlive.cluster.heartbeat import ModuleStatus, ModuleTable
from outlive.cluster.host import Capacity, Host
from outlive.cluster.leader_state import LeaderState
from outlive.cluster.machine import LOCAL, MODULE, Disk, Machine
from outlive.cluster.node_state import NodeState
from outlive.cluster.timing import Timing
from outlive.cluster.transaction import Delete, Field, KeyValue, Put, Transaction
from outlive.cluster.workload import Kind, Module, Protection, Workload


def host(name: str, **changes: object) -> Host:
    """A host with plenty of everything."""
    base = Host(name, "here", f"10.0.0.{ord(name[0])}", 7000, 7001, Capacity(8, 16384), datastores=("shared",))
    return replace(base, **changes)  # type: ignore[arg-type]


def service(name: str, *modules: Module, **changes: object) -> Workload:
    """A service of one module unless told otherwise."""
    base = Workload(name, modules or (Module("main", ("/bin/true",)),), data_on="shared")
    return replace(base, **changes)  # type: ignore[arg-type]


def machine(name: str, protection: Protection = Protection.HOT, **changes: object) -> Workload:
    """A virtual machine with a disk of its own: on its host if it is hot, else on the datastore."""
    disk = Disk("root", on=LOCAL if protection is Protection.HOT else "shared", size_mib=64)
    base = Workload(
        name,
        (Module(MODULE, ()),),
        kind=Kind.VM,
        protection=protection,
        machine=Machine(disks=(disk,)),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


PAIRING = (PrepareStandby, Pair, GoAlone, HandOver, MigrateTo, TakeOver, DiscardStandby)
"""The commands of pairs; the world keeps what was told to whom."""


class SmallStore:
    """Keys, revisions, leases and a log of changes: what etcd promises, without a network."""

    def __init__(self) -> None:
        self.keys: dict[str, KeyValue] = {}
        self.revision = 1
        self.log: list[tuple[int, list[KeyValue | Delete]]] = []
        self.leases: dict[int, tuple[float, int]] = {}

    def transact(self, transaction: Transaction) -> bool:
        for compare in transaction.compares:
            found = self.keys.get(compare.key)
            number = 0 if found is None else (
                found.create_revision if compare.field is Field.CREATED else found.mod_revision
            )  # fmt: skip
            if number != compare.revision:
                return False
        self.revision += 1
        self.log.append((self.revision, [self._write(write) for write in transaction.writes]))
        return True

    def _write(self, write: Put | Delete) -> KeyValue | Delete:
        if isinstance(write, Delete):
            self.keys.pop(write.key, None)
            return write
        old = self.keys.get(write.key)
        created = old.create_revision if old else self.revision
        self.keys[write.key] = KeyValue(write.key, write.value, created, self.revision, write.lease)
        return self.keys[write.key]

    def put(self, key: str, value: bytes) -> None:
        """Write a key by hand."""
        self.transact(Transaction((), (Put(key, value),)))

    def delete(self, key: str) -> None:
        """Remove a key by hand."""
        self.transact(Transaction((), (Delete(key),)))

    def expire(self, now: float) -> None:
        for lease, (until, _) in list(self.leases.items()):
            if now >= until:
                del self.leases[lease]
                for key in [key for key, value in self.keys.items() if value.lease == lease]:
                    self.delete(key)


@dataclass
class SmallHost:
    """One host's two machines and what waits for them."""

    node: NodeState
    leader: LeaderState
    mirror: mirror.Mirror
    seen: int
    sequence: int = 0
    waiting: list[Event] = field(default_factory=list)
    tables: dict[bytes, ModuleTable] = field(default_factory=dict)
    journal: Journal | None = None


class SmallWorld:
    """Hosts, a store, and a clock that the test moves."""

    def __init__(self, *names: str, timing: Timing | None = None) -> None:
        self.now = 100.0
        self.timing = timing or Timing()
        self.store = SmallStore()
        self.hosts: dict[str, SmallHost] = {}
        self.off: set[str] = set()
        self.cut: set[str] = set()
        self.failing: set[tuple[str, str]] = set()
        self.happened: list[rec.EventRecord] = []
        self.told: list[tuple[str, Command]] = []
        self.swallow: Callable[[str, Command], bool] = lambda name, command: False
        for name in names:
            self.boot(host(name))

    def boot(self, which: Host) -> None:
        """Switch a new host on."""
        picture = mirror.snapshot(mirror.Mirror(), self.store.revision, self.store.keys.values(), self.now)
        self.hosts[which.name] = SmallHost(
            node.start(which, "b" * 32, "c" * 16, self.timing),
            leader.start(which.name, self.timing),
            picture,
            self.store.revision,
        )
        self.off.discard(which.name)
        self.tell(which.name, AgentStarted(self.now, f"run{self.store.revision}", None, {}, 0.0, picture))
        self.tell(which.name, DatastoreChanged(self.now, True))

    def restart_agent(self, name: str) -> None:
        """Have a host's agent end and start again; all that it held goes on meanwhile."""
        each = self.hosts[name]
        held = each.journal.held if each.journal is not None else ()
        alive = {
            one.workload.name: {module.name: ModuleStatus.RUNNING for module in one.workload.modules}
            for one in held
            if one.ended is None
        }
        each.waiting = []
        each.node = node.start(each.node.host, each.node.boot_id, each.node.cluster_id, self.timing)
        each.leader = leader.start(name, self.timing)
        until = self.now + self.timing.claim_ttl_s
        self.tell(name, AgentStarted(self.now, f"run{self.store.revision}", each.journal, alive, until, each.mirror))

    def tell(self, name: str, event: Event) -> None:
        """Give an event to both machines of a host and do what they ask."""
        each = self.hosts[name]
        each.node, first = node.step(each.node, event)
        each.leader, second = leader.step(each.leader, event)
        for command in (*first, *second):
            if not self.swallow(name, command):
                self._do(name, each, command)

    def _do(self, name: str, each: SmallHost, command: Command) -> None:
        now = self.now
        if isinstance(command, PAIRING):
            self.told.append((name, command))
        match command:
            case GrantLease(ttl_s=ttl_s):
                lease = 1000 + self.store.revision * 10 + len(self.store.leases)
                self.store.leases[lease] = (now + ttl_s, ttl_s)
                each.waiting.append(LeaseGranted(now, lease))
            case KeepAlive(lease=lease) if lease in self.store.leases:
                ttl_s = self.store.leases[lease][1]
                self.store.leases[lease] = (now + ttl_s, ttl_s)
            case Transact(purpose=purpose, transaction=transaction):
                done = self.store.transact(transaction)
                outcome = Outcome.DONE if done else Outcome.REFUSED
                each.waiting.append(Transacted(now, purpose, now, outcome, self.store.revision))
            case SendHeartbeat(heartbeat=heartbeat, to=to):
                each.sequence += 1
                sent = replace(heartbeat, sequence=each.sequence)
                for other in to:
                    if self._connected(name, other):
                        self.hosts[other].waiting.append(HeartbeatReceived(now, sent))
            case WriteSlot(heartbeat=heartbeat, table=table):
                each.sequence += 1
                each.tables[table.digest()] = table
                sent = replace(heartbeat, sequence=each.sequence)
                for other, there in self.hosts.items():
                    if other != name:
                        there.waiting.append(SlotChanged(now, sent))
            case LearnTable(host=other, digest=digest):
                known = self.hosts[other].tables.get(digest) if other in self.hosts else None
                if known is not None:
                    each.waiting.append(TableLearned(now, other, known))
            case Probe(target=target, via=via):
                asker = via or name
                if self._connected(name, asker) and self._connected(asker, target):
                    each.waiting.append(ProbeAnswered(now, target, asker))
            case Prepare(workload=workload, generation=generation):
                each.waiting.append(Prepared(now, workload.name, generation))
            case StartModule(workload=workload_name, generation=generation, module=module):
                failed = (name, module) in self.failing
                status = ModuleStatus.FAILED if failed else ModuleStatus.RUNNING
                each.waiting.append(ModuleChanged(now, workload_name, generation, module, status, "as told"))
            case TearDown(workload=workload_name, generation=generation):
                each.waiting.append(TornDown(now, workload_name, generation))
            case PrepareStandby(workload=workload, generation=generation, pairing=pairing):
                each.waiting.append(StandbyListening(now, workload.name, generation, pairing, f"at-{name}", 4000))
            case Pair(standby=other) | MigrateTo(target=other) if self._connected(name, other):
                about = (now, command.workload, command.generation, command.pairing)
                if isinstance(command, MigrateTo):
                    each.waiting.append(Migrated(*about))
                else:
                    self.hosts[other].waiting += [StandbySeeding(*about), StandbyWhole(*about)]
                    each.waiting.append(Paired(*about))
            case HandOver(workload=workload_name, generation=generation, pairing=pairing):
                other = self.placement(workload_name).standby or name
                lost = PeerLost(now, workload_name, generation, pairing, Role.STANDBY, "handed over", whole=True)
                if self._connected(name, other):
                    self.hosts[other].waiting.append(lost)
            case TakeOver(workload=workload_name, to_generation=generation):
                each.waiting.append(TookOver(now, workload_name, generation))
            case SaveJournal(journal=journal):
                each.journal = journal
            case TakeCheckpoint(workload=workload_name, generation=generation, operation=operation):
                each.waiting.append(CheckpointEnded(now, workload_name, generation, operation, whole=True))
            case DiscardStandby(workload=workload_name, generation=generation, pairing=pairing):
                each.waiting.append(StandbyDiscarded(now, workload_name, generation, pairing))
            case DeclareIsolated(isolated=isolated):
                each.waiting.append(SelfIsolated(now, isolated))
            case RecordEvent(event=event):
                self.happened.append(event)
            case _:
                pass

    def _connected(self, one: str, other: str) -> bool:
        if one == other:
            return True
        return other in self.hosts and other not in self.off and not {one, other} & self.cut

    def run(self, seconds: float) -> None:
        """Let time pass, in steps of a tick."""
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.now = round(self.now + self.timing.tick_s, 6)
            self.store.expire(self.now)
            for name in self.hosts:
                if name not in self.off:
                    self.settle(name)
                    each = self.hosts[name]
                    self.tell(name, Tick(self.now, 0.1, each.sequence))
                    self.settle(name)

    def settle(self, name: str) -> None:
        """Give a host all that waits for it."""
        each = self.hosts[name]
        while each.seen < self.store.revision or each.waiting:
            for revision, changes in self.store.log:
                if revision > each.seen:
                    each.seen = revision
                    each.mirror = mirror.changed(each.mirror, revision, changes, self.now)
                    self.tell(name, StoreMoved(self.now, each.mirror, frozenset(change.key for change in changes)))
            waiting, each.waiting = each.waiting, []
            for event in waiting:
                self.tell(name, event)

    def apply(self, workload: Workload, desired: rec.Desired = rec.Desired.RUNNING, version: int = 1) -> None:
        """What `outlive apply`, `stop`, `start` and `rm` write."""
        record = rec.WorkloadRecord(workload, desired, version, because="op")
        self.store.put(rec.WORKLOADS + workload.name, rec.encode(record))

    def ask(self, operation: rec.OperationRecord) -> None:
        """What `outlive migrate` and `failover` write."""
        self.store.put(rec.OPERATIONS + operation.id, rec.encode(operation))

    def placement(self, workload: str) -> rec.PlacementRecord:
        """The placement that stands in the store."""
        record = rec.decode(rec.PLACEMENTS + workload, self.store.keys[rec.PLACEMENTS + workload].value)
        assert isinstance(record, rec.PlacementRecord)
        return record

    def operation(self, name: str) -> rec.OperationRecord:
        """The operation that stands in the store."""
        record = rec.decode(rec.OPERATIONS + name, self.store.keys[rec.OPERATIONS + name].value)
        assert isinstance(record, rec.OperationRecord)
        return record

    def break_link(self, workload: str) -> None:
        """Have both hosts of a pair that live lose each other."""
        placed = self.placement(workload)
        about = (self.now, workload, placed.generation, placed.pairing)
        for host, role in ((placed.standby, Role.STANDBY), (placed.host, Role.PRIMARY)):
            if host is not None and host not in self.off:
                self.hosts[host].waiting.append(PeerLost(*about, role, "silent for 150 ms", whole=placed.paired))
                self.settle(host)

    def said(self, host: str) -> list[str]:
        """The names of the commands of pairs that a host was told."""
        return [type(command).__name__ for name, command in self.told if name == host]

    def first(self, workload: str) -> int:
        """The generation of a workload's very first placement."""
        placed = (each for each in self.happened if each.kind == "workload.placed" and each.workload == workload)
        return next(placed).generation

    def leads(self) -> str | None:
        """The host that the store names as leader."""
        value = self.store.keys.get(rec.LEADER)
        record = rec.decode(rec.LEADER, value.value) if value else None
        return record.host if isinstance(record, rec.LeaderRecord) else None

    def runs_on(self, workload: str) -> list[str]:
        """The hosts whose node holds the workload as running."""
        return [
            name
            for name, each in self.hosts.items()
            if name not in self.off
            and (reign := each.node.reigns.get(workload)) is not None
            and reign.stage() is rec.Stage.RUNNING
        ]

    def kinds(self, since: int = 0) -> list[str]:
        """What was recorded, by kind."""
        return [event.kind for event in self.happened[since:]]

    def other_than(self, *names: str | None) -> str:
        """Some host that is none of these."""
        return next(name for name in self.hosts if name not in names and name not in self.off)
