"""The keys of a workload file: what each may be, what holds without it, and what it means.

Each key is told here once (those of modules in `module_shape`): the file is read by these shapes, and its JSON
Schema and the tables in docs/workload-file.md are made from them. Defaults are those of the nouns in
`outlive.cluster.workload`. Relations between keys are in `workload_rules`.
"""

from outlive.cluster.host import Capacity
from outlive.cluster.workload import Kind, OnIsolation, Protection, VirtualIP, Workload

from .module_shape import MODULE, MOST_CPUS, MOST_MEMORY_MIB, MOST_MODULES
from .shapes import Choice, Number
from .tables import Key, ListOf, Table, TableOf, key_of
from .texts import INTERFACE, LABEL_NAME, LABEL_VALUE, VIRTUAL_IP, name_of

MOST_VIRTUAL_IPS = 16

_SCOPE = "this version runs services under cold protection"

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
            Choice((Kind.SERVICE,), ("vm", "app"), _SCOPE, Kind),
            "What it is: a `service` is one or more programs.",
            also=("type",),
        ),
        key_of(
            Workload,
            "protection",
            Choice((Protection.COLD,), ("warm", "hot"), _SCOPE, Protection),
            "What it may lose: under "
            "`cold` protection it is started again, here or elsewhere, and keeps what it wrote to its data folder.",
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
            "on_isolation",
            Choice(tuple(OnIsolation), made=OnIsolation),
            "What its host does when it reaches no other "
            "host: `stop` it so that another can take over, or `leave` it running while its claim lasts.",
        ),
        key_of(
            Workload,
            "data_on",
            name_of("a datastore"),
            "The datastore with its data folder, `{data}`; the run lock that "
            "keeps a second copy from starting is there too. Without it the workload has neither.",
            also=("datastore", "data", "storage", "volume"),
        ),
        Key(
            "resources",
            RESOURCES,
            "What a host must have free for it. It is reserved, not enforced: that is what limits are for.",
            also=("resource", "requests"),
        ),
        Key("placement", PLACEMENT, "Where it may run."),
        Key(
            "virtual_ip",
            ListOf(VIRTUAL_IPS, "virtual IPs", most=MOST_VIRTUAL_IPS),
            "Addresses that move with it, by which its clients reach it.",
            also=("virtual_ips", "vip", "ip", "address"),
        ),
        Key(
            "module",
            TableOf(name_of("a module"), MODULE, "modules", least=1, most=MOST_MODULES),
            "The programs that it consists of, each supervised on its own.",
            required=True,
            also=("modules", "service", "program", "process"),
        ),
    )
)
