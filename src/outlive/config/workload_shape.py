"""The keys of a workload file: what each may be, what holds without it, and what it means.

Each key is told here once (those of modules in `module_shape`, of virtual machines in `machine_shape`): the file is
read by these shapes, and its JSON Schema and the tables in docs/ are made from them. Defaults are those of the nouns in
`outlive.cluster.workload`. Relations between keys are in `workload_rules`.
"""

from outlive.cluster.host import Capacity
from outlive.cluster.workload import (
    Apart,
    Kind,
    OnAfterLimit,
    OnIsolation,
    PlacementRules,
    Protection,
    UpgradePolicy,
    VirtualIP,
    Workload,
)

from .guest_shape import HOT, WARM
from .machine_shape import MACHINE
from .module_shape import MODULE, MOST_CPUS, MOST_MEMORY_MIB, MOST_MODULES
from .shapes import Choice, Number
from .tables import Key, ListOf, Table, TableOf, key_of
from .texts import INTERFACE, LABEL_NAME, LABEL_VALUE, PACKAGE, VIRTUAL_IP, name_of

MOST_VIRTUAL_IPS = 16

_SCOPE = "this version runs services and virtual machines"


def _workloads() -> ListOf:
    return ListOf(name_of("a workload"), "names of workloads", most=32, unique=True)


RESOURCES = Table(
    (
        key_of(Capacity, "cpus", Number(0, MOST_CPUS), "Processors.", also=("cpu",)),
        key_of(
            Capacity,
            "memory_mib",
            Number(0, MOST_MEMORY_MIB, whole=True),
            "Memory in MiB.",
            also=("memory", "ram", "memory_mb"),
        ),
    )
)

PLACEMENT = Table(
    (
        Key(
            "sites",
            ListOf(name_of("a site"), "names of sites", unique=True),
            "The sites where it may run; without any, all.",
            also=("site",),
        ),
        Key(
            "hosts",
            ListOf(name_of("a host"), "names of hosts", unique=True),
            "The hosts where it may run; without any, all.",
            also=("host",),
        ),
        Key(
            "labels",
            TableOf(LABEL_NAME, LABEL_VALUE, "labels", most=64, heading="LABEL"),
            "Labels that a host must have, each with this value.",
            also=("label",),
        ),
        Key(
            "prefer_sites",
            ListOf(name_of("a site"), "names of sites", unique=True),
            "Where among these it goes when it can; each is one of `sites`, if that is given.",
            also=("preferred_sites", "prefer"),
        ),
        key_of(
            PlacementRules,
            "apart",
            Choice(tuple(Apart), made=Apart),
            "How far from it its standby is, and the workloads in `apart_from`: on another `host`, or in another "
            "`site`.",
            also=("distance",),
        ),
        Key(
            "together_with",
            _workloads(),
            "Workloads on whose host it must be placed. It follows them: they are placed first, and wait for nothing.",
            also=("with", "affinity", "colocate_with", "together"),
        ),
        Key(
            "apart_from",
            _workloads(),
            "Workloads from which it must be placed apart, as far as `apart` says. It binds both, said in one file.",
            also=("anti_affinity", "not_with", "away_from"),
        ),
        Key(
            "prefer_together_with",
            _workloads(),
            "Workloads on whose host it is placed if that can be.",
            also=("prefer_with", "preferred_affinity"),
        ),
        Key(
            "prefer_apart_from",
            _workloads(),
            "Workloads from which it is placed apart if that can be.",
            also=("prefer_apart", "preferred_anti_affinity"),
        ),
        key_of(
            PlacementRules,
            "group",
            name_of("a group"),
            "Workloads that name the same group are spread: over sites, and within these over hosts, as far as all "
            "other rules and room allow.",
            also=("spread", "spread_group"),
        ),
    )
)

VIRTUAL_IPS = Table(
    (
        key_of(
            VirtualIP,
            "address",
            VIRTUAL_IP,
            "The address with the prefix length of its subnet.",
            required=True,
            also=("ip",),
        ),
        key_of(
            VirtualIP,
            "interface",
            INTERFACE,
            "The network interface that gets it; without it, the one in the address's subnet.",
            also=("device", "dev", "nic"),
        ),
    )
)

UPGRADE = Table(
    (
        key_of(
            UpgradePolicy,
            "healthy_within_s",
            Number(0, 3600, above=True),
            "Seconds that it may take from its start until all its modules run.",
            also=("healthy_within", "timeout", "deadline"),
        ),
        key_of(
            UpgradePolicy,
            "watch_s",
            Number(0, 3600),
            "Seconds for which they must then run without a failure.",
            also=("watch", "monitor", "soak"),
        ),
    )
)

WORKLOAD = Table(
    (
        key_of(
            Workload,
            "name",
            name_of("a workload"),
            "What the workload is called everywhere: 1 to 63 of a-z, 0-9 and '-'.",
            required=True,
            also=("id",),
        ),
        key_of(
            Workload,
            "kind",
            Choice(tuple(Kind), ("app",), _SCOPE, Kind),
            "What it is: a `service` is one or more programs, a `vm` is a virtual machine.",
            also=("type",),
        ),
        key_of(
            Workload,
            "protection",
            Choice(tuple(Protection), made=Protection),
            "What it may lose. `cold`: it is started again, here or elsewhere, with what it wrote to its data folder "
            "or disks. For a vm also `warm`: it goes on from its last checkpoint; and `hot`: a standby follows, and it "
            "goes on there as if nothing had been.",
        ),
        key_of(
            Workload,
            "priority",
            Number(0, 1000, whole=True),
            "When there is not room for all, the larger is placed first.",
            also=("weight",),
        ),
        key_of(
            Workload,
            "after",
            ListOf(name_of("a workload"), "names of workloads", unique=True),
            "Workloads that must run before this one is started: all their modules ready, all their checks passed.",
            also=("depends_on", "requires", "needs", "dependencies"),
        ),
        key_of(
            Workload,
            "after_limit_s",
            Number(1, 86400),
            "How long it waits for them before that is told as a failure.",
            also=("after_timeout_s", "dependency_timeout"),
        ),
        key_of(
            Workload,
            "on_after_limit",
            Choice(tuple(OnAfterLimit), made=OnAfterLimit),
            "What then becomes of it: it goes on to `wait`, or it is to `start` without them.",
            also=("after_else",),
        ),
        key_of(
            Workload,
            "on_isolation",
            Choice(tuple(OnIsolation), made=OnIsolation),
            "What its host does when it reaches no other host: `stop` it so that another can take over, or `leave` it "
            "running while its claim lasts. Without it the cluster's policy `on_isolation` holds, usually `stop`.",
        ),
        key_of(
            Workload,
            "data_on",
            name_of("a datastore"),
            "The datastore with its data folder, `{data}`; the run lock that keeps a second copy from starting is "
            "there too. Without it a service has neither, and a vm has its lock with its first disk on a datastore.",
            also=("datastore", "data", "storage", "volume"),
        ),
        Key(
            "package",
            PACKAGE,
            "The configuration package that is installed where it runs, before it starts: NAME, or NAME@VERSIONS with "
            "the versions that will do, as in `web@^1.2`. Its folder is `{package}`. The newest that will do is taken "
            "when the file is applied first; it stays until the file is applied with `--upgrade`, or forbids it.",
            only=(Kind.SERVICE,),
            also=("packages", "pkg", "bundle", "artifact"),
        ),
        Key(
            "upgrade",
            UPGRADE,
            "When another version of its package counts as good; one that does not is given up for the one before.",
            only=(Kind.SERVICE,),
            also=("rollout", "update", "rollback"),
        ),
        Key(
            "resources",
            RESOURCES,
            "What a host must have free for it. It is reserved, not enforced: that is what limits are for. Without "
            "it nothing for a service; for a vm its processors, and its memory with the emulator's own.",
            also=("resource", "requests"),
        ),
        Key("placement", PLACEMENT, "Where it may run."),
        Key(
            "virtual_ip",
            ListOf(VIRTUAL_IPS, "virtual IPs", most=MOST_VIRTUAL_IPS),
            "Addresses that move with it, by which its clients reach it.",
            only=(Kind.SERVICE,),
            also=("virtual_ips", "vip", "ip", "address"),
        ),
        Key(
            "module",
            TableOf(name_of("a module"), MODULE, "modules", least=1, most=MOST_MODULES),
            "The programs that it consists of, each supervised on its own.",
            required=True,
            only=(Kind.SERVICE,),
            also=("modules", "service", "program", "process"),
        ),
        Key(
            "vm",
            MACHINE,
            "The hardware of the virtual machine, and what is watched of its guest.",
            required=True,
            only=(Kind.VM,),
            also=("machine", "guest", "domain"),
        ),
        Key(
            "warm",
            WARM,
            "Its checkpoints, under warm protection.",
            only=(Kind.VM,),
            also=("checkpoint", "checkpoints", "snapshot"),
        ),
        Key(
            "hot",
            HOT,
            "How closely its standby follows, under hot protection.",
            only=(Kind.VM,),
            also=("standby", "replication", "replica"),
        ),
    ),
    told_by="kind",
)
