"""A workload: what the user wants kept running, as values.

Reading it from a file, with every error's line and fix, is in `outlive.config`. What a workload's present
state is stands in `records` (placement and report); here is only what it should be.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from msgspec import UNSET, UnsetType

from .host import Capacity
from .machine import LOCAL, HotPolicy, Machine, WarmPolicy
from .pushed import PackageUse


class Kind(StrEnum):
    SERVICE = "service"
    VM = "vm"


class Protection(StrEnum):
    COLD = "cold"
    WARM = "warm"
    HOT = "hot"


class Apart(StrEnum):
    """How far from a workload its standby must be, and the workloads that it is to be apart from."""

    HOST = "host"
    SITE = "site"


class OnIsolation(StrEnum):
    """What a host does with a workload when it finds itself cut off from every other host."""

    STOP = "stop"
    LEAVE = "leave"


class OnAfterLimit(StrEnum):
    """What becomes of a workload when those that it comes after have not run for too long."""

    WAIT = "wait"
    START = "start"


class CheckKind(StrEnum):
    COMMAND = "command"
    TCP = "tcp"
    HTTP = "http"


@dataclass(frozen=True, slots=True)
class Check:
    """A health check of a running module; `failures` in a row make the module failed.

    command: for kind command, run in the module's environment; exit 0 is healthy.
    address, port: for tcp and http (default address 127.0.0.1); path, status: for http.
    grace_s: how long after its start a module may fail checks before the first success counts as overdue.
    """

    kind: CheckKind
    command: tuple[str, ...] = ()
    address: str = "127.0.0.1"
    port: int = 0
    path: str = "/"
    status: int = 200
    interval_s: float = 1.0
    timeout_s: float = 1.0
    failures: int = 3
    grace_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Readiness:
    """A module counts as running once a line of its output matches `line` (a regular expression)."""

    line: str
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class RestorePolicy:
    """How often a failed module is restored in place before its workload fails over.

    `attempts` within `window_s`; the n-th waits backoff_s * 2^(n-1), at most backoff_most_s.
    """

    attempts: int = 3
    window_s: float = 60.0
    backoff_s: float = 0.5
    backoff_most_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """The most a module may use; None is unlimited. Held by cgroups where available."""

    cpus: float | None = None
    memory_mib: int | None = None
    processes: int | None = None
    open_files: int | None = None


@dataclass(frozen=True, slots=True)
class Module:
    """One program of a workload, supervised on its own.

    command, environment values and working_folder may hold {data}, {address}, {host}, {workload}, {generation} and
    {package}.  command (): as the workload's package says.
    after: modules that must be running before this one starts.
    """

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    working_folder: str | None = None
    user: str | None = None
    limits: Limits = Limits()
    checks: tuple[Check, ...] = ()
    readiness: Readiness | None = None
    restore: RestorePolicy = RestorePolicy()
    after: tuple[str, ...] = ()
    stop_signal: str = "TERM"
    stop_grace_s: float = 5.0


@dataclass(frozen=True, slots=True)
class VirtualIP:
    """An address that moves with the workload: `address` with prefix length, `interface` None: found by subnet."""

    address: str
    interface: str | None = None


@dataclass(frozen=True, slots=True)
class PlacementRules:
    """Where the workload may run. Empty means anywhere. `labels` must all be met by the host.

    prefer_sites: where among those it goes when it can.
    together_with, apart_from: workloads on whose host it must be placed, or must not (`affinity`); the same preferred.
    apart: how far from it its standby is, and the workloads in `apart_from`.
    group: workloads of one group are spread over sites, and within these over hosts, as far as all else allows.
    """

    sites: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    prefer_sites: tuple[str, ...] = ()
    apart: Apart = Apart.HOST
    together_with: tuple[str, ...] = ()
    apart_from: tuple[str, ...] = ()
    prefer_together_with: tuple[str, ...] = ()
    prefer_apart_from: tuple[str, ...] = ()
    group: str = ""


@dataclass(frozen=True, slots=True)
class UpgradePolicy:
    """When another version of its package counts as good, in seconds.

    healthy_within_s: how long it may take from its start until all its modules run; watch_s: how long they must then go
    on without a failure. A version that does not is given up for the one before.
    """

    healthy_within_s: float = 60.0
    watch_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Workload:
    """All that a cluster needs to know to keep a service or a virtual machine running somewhere.

    data_on: name of the datastore that holds its data folder; None: no data folder, no run lock.
    priority: larger is placed first when capacity is short.
    on_isolation: not set, which null is taken for: as the cluster's policies say.
    after: names of workloads that must run before this one is started; after_limit_s: how long that may take before
    it is told loudly, and on_after_limit, what then becomes of this one.
    machine: for kind vm, and for that alone; its modules are then the one of `machine.MODULE`.
    package: what is installed for it before it starts; upgrade: how a change of that is judged.
    """

    name: str
    modules: tuple[Module, ...]
    kind: Kind = Kind.SERVICE
    protection: Protection = Protection.COLD
    priority: int = 100
    on_isolation: OnIsolation | UnsetType | None = UNSET
    resources: Capacity = Capacity()
    placement: PlacementRules = PlacementRules()
    virtual_ips: tuple[VirtualIP, ...] = ()
    data_on: str | None = None
    machine: Machine | None = None
    warm: WarmPolicy = WarmPolicy()
    hot: HotPolicy = HotPolicy()
    after: tuple[str, ...] = ()
    after_limit_s: float = 120.0
    on_after_limit: OnAfterLimit = OnAfterLimit.WAIT
    package: PackageUse | None = None
    upgrade: UpgradePolicy = UpgradePolicy()

    def __post_init__(self) -> None:
        # What is unset is not written. A null would be refused by the versions before, which know two words only; and
        # a leader of such a version would take the whole record back.
        if self.on_isolation is None:
            object.__setattr__(self, "on_isolation", UNSET)

    @property
    def is_hot(self) -> bool:
        """Whether a standby follows it."""
        return self.kind is Kind.VM and self.protection is Protection.HOT

    @property
    def keeps_disks(self) -> bool:
        """Whether it leaves something on the disks of the host it runs on, so that it cannot start just anywhere."""
        disks = self.machine.disks if self.machine is not None else ()
        return any(disk.on == LOCAL and not disk.read_only for disk in disks)

    def module(self, name: str) -> Module:
        """The module of that name; KeyError if there is none."""
        for module in self.modules:
            if module.name == name:
                return module
        raise KeyError(name)


def start_order(modules: tuple[Module, ...]) -> tuple[tuple[str, ...], ...]:
    """Names in layers: each layer may start once the ones before it run. ValueError names a cycle."""
    waiting = {module.name: set(module.after) for module in modules}
    layers: list[tuple[str, ...]] = []
    while waiting:
        ready = tuple(name for name, after in waiting.items() if not after & waiting.keys())
        if not ready:
            raise ValueError(" → ".join(sorted(waiting)))
        layers.append(ready)
        for name in ready:
            del waiting[name]
    return tuple(layers)
