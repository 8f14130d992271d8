"""The keys of an agent's file, /etc/outlive/agent.toml: what each may be, what holds without it, and what it means.

Each key is told here once, for the reader, the JSON Schema and the reference in docs/agent-file.md. Defaults of
[timing] are those of `outlive.cluster.timing`.
"""

from dataclasses import fields

from outlive.cluster.timing import Timing

from . import store_address
from .fence_shape import FENCING
from .module_shape import DAY_S, MOST_CPUS, MOST_MEMORY_MIB
from .shapes import Choice, Flag, Number, Text, Wrong
from .store_address import StoreAddressInvalid, parse_store
from .tables import Key, ListOf, Table, TableOf, key_of
from .texts import ADDRESS_OF_HOST, LABEL_NAME, LABEL_VALUE, absolute_path, name_of

MOST_DATASTORES = 16
LONGEST_RUN_FOLDER = 80
"""In characters: the sockets in the run folder have to fit what Linux takes as a socket's path, 107 bytes."""

DATA_FOLDER = "/var/lib/outlive"
VM_FOLDER = "/var/lib/outlive/vms"
RAM_FOLDER = "/dev/shm/outlive"  # noqa: S108 – the agent makes it for root alone
RUN_FOLDER = "/run/outlive"
CLUSTER_KEY_FILE = "/etc/outlive/cluster.key"
PORT = 4620

STORE_FIX = (
    f"Write sqlite://{DATA_FOLDER}/store.sqlite, an absolute path, "
    "or etcd://HOST:2379,HOST:2379,HOST:2379/PREFIX (etcds:// for TLS)."
)


def _store(text: str) -> str:
    try:
        parse_store(text)
    except StoreAddressInvalid as error:
        raise Wrong(str(error), STORE_FIX) from None
    return text


STORE = Text(
    "sqlite:///PATH, etcd://HOST:PORT,…/PREFIX or etcds://HOST:PORT,…/PREFIX",
    store_address.SHAPE,
    STORE_FIX,
    least=8,
    most=4000,
    made=_store,
)
CLUSTER_ID = Text(
    "16 hexadecimal digits in lower case",
    "[0-9a-f]{16}",
    "Copy it from another host of the cluster.",
    least=16,
    most=16,
)

CLUSTER = Table(
    (
        Key(
            "id", CLUSTER_ID, "The cluster that this host belongs to, by the 16 digits it was made with.", required=True
        ),
        Key(
            "key_file",
            absolute_path("the file with the cluster's key"),
            "The file with the cluster's key, 32 bytes that tag heartbeats; readable by the agent alone.",
            CLUSTER_KEY_FILE,
            also=("key",),
        ),
    )
)

CAPACITY = Table(
    (
        Key("cpus", Number(0, MOST_CPUS, above=True), "Processors.", required=True, also=("cpu",)),
        Key(
            "memory_mib",
            Number(1, MOST_MEMORY_MIB, whole=True),
            "Memory in MiB.",
            required=True,
            also=("memory", "ram", "memory_mb"),
        ),
    )
)

DATASTORE = Table(
    (
        Key(
            "name",
            name_of("a datastore"),
            "What workloads call it in `data_on`; the same on every host.",
            required=True,
        ),
        Key(
            "path",
            absolute_path("the datastore's folder"),
            "The folder where this host has it mounted.",
            required=True,
            also=("folder", "mount", "dir"),
        ),
    )
)

TLS = Table(
    (
        Key("ca", absolute_path("a PEM file"), "The certificate of the cluster's authority.", required=True),
        Key("certificate", absolute_path("a PEM file"), "This host's certificate.", required=True, also=("cert",)),
        Key("key", absolute_path("a PEM file"), "This host's private key, readable by the agent alone.", required=True),
    )
)

STORE_TLS = Table(
    (
        Key("ca", absolute_path("a PEM file"), "The authority of etcd's certificates; without it, the system's."),
        Key(
            "certificate",
            absolute_path("a PEM file"),
            "The certificate that this host shows to etcd, where etcd asks for one; it goes with `key`.",
            also=("cert",),
        ),
        Key("key", absolute_path("a PEM file"), "Its private key, readable by the agent alone."),
    )
)

STORE_LOGIN = Table(
    (
        Key(
            "user",
            Text("the name of a user in etcd", r"[^\x00-\x1f\x7f]+", "Write the user's name.", least=1, most=256),
            "The user in etcd that hosts are; it may read and write the store's prefix.",
            required=True,
            also=("name", "username"),
        ),
        Key(
            "password_file",
            absolute_path("the file with the password"),
            "The file with its password in one line, readable by the agent alone. It is read for each login.",
            required=True,
            also=("password",),
        ),
        Key(
            "without_tls",
            Flag(),
            "Send the password to another machine at `etcd://` too, where whoever listens on the way can read it; "
            "refused otherwise.",
            False,
        ),
    )
)

_TIMING: dict[str, str] = {
    "tick_s": "How often the agent looks at what is due.",
    "heartbeat_s": "How often a host sends a heartbeat over the network.",
    "suspect_s": "Silence after which a host is suspect.",
    "dead_s": "Silence after which a host may be dead, if nothing else tells of it.",
    "slot_s": "How often a host writes its slot in each datastore.",
    "slot_stale_s": "How long a slot may stay unchanged before it counts as silent.",
    "claim_ttl_s": "How long a host may act without renewing its claim, in whole seconds; then its guard acts.",
    "renew_s": "How often a claim is renewed.",
    "give_up_s": "How long before its claim's end a host that cannot renew it stops its workloads in order.",
    "drift_ratio": "The most that the clocks of two hosts may differ in rate: 0.01 is one in a hundred.",
    "guard_late_s": "The most that a guard may be late.",
    "isolation_s": "Silence of all others after which a host holds itself isolated.",
    "probe_s": "How often a silent host is probed.",
    "probe_fresh_s": "How long an answer to a probe counts.",
    "verify_s": "How long a restored module has to show that it runs.",
    "stable_s": "How long a workload has to run for its failures to be forgiven.",
    "retry_first_s": "The first wait before a workload that failed everywhere is placed again.",
    "retry_most_s": "The longest such wait.",
    "exclude_s": "How long a host where a workload failed is avoided for it.",
    "lag_s": "How late a host's own ticks may be before it doubts its judgement of others.",
    "transact_s": "How long a transaction in the store may take.",
    "take_over_s": "How long a standby has to take over by itself before its workload is started from a disk.",
    "hand_over_s": "How long a standby has to take what was handed over before the primary goes on.",
    "hold_room_s": "How long room is held for a more important workload that is about to need a new place.",
    "witnesses": "How many other hosts are asked to probe a silent one. A number of hosts, not seconds.",
}


def _timing_shape(name: str) -> Number:
    match name:
        case "claim_ttl_s":
            return Number(2, 3600, whole=True)
        case "witnesses":
            return Number(0, 64, whole=True)
        case "drift_ratio":
            return Number(0, 0.1)
        case "give_up_s":
            return Number(0, DAY_S)
        case _:
            return Number(0, DAY_S, above=True)


TIMING = Table(
    tuple(
        key_of(Timing, field.name, _timing_shape(field.name), _TIMING[field.name])
        for field in fields(Timing)
        if field.name in _TIMING
    )
)

AGENT = Table(
    (
        Key("host", name_of("a host"), "This host's name in the cluster.", required=True, also=("name", "hostname")),
        Key("site", name_of("a site"), "The site that it is in: a place that fails as one.", "default"),
        Key(
            "address",
            ADDRESS_OF_HOST,
            "The IP address by which the other hosts reach this one.",
            required=True,
            also=("ip", "bind"),
        ),
        Key("port", Number(1, 65_535, whole=True), "The UDP port for heartbeats.", PORT),
        Key("peer_port", Number(1, 65_535, whole=True), "The TCP port for other agents.", PORT),
        Key(
            "data_folder",
            absolute_path("a folder"),
            "Where the agent keeps what must outlast a reboot: its journal, logs and the workloads' own logs.",
            DATA_FOLDER,
            also=("data_dir", "data"),
        ),
        Key(
            "vm_folder",
            absolute_path("a folder"),
            "Where virtual machines have what is kept on this host: local disks, firmware settings.",
            VM_FOLDER,
            also=("vms",),
        ),
        Key(
            "ram_folder",
            absolute_path("a folder"),
            "A folder in memory (tmpfs) for the memory of virtual machines that are warm or hot.",
            RAM_FOLDER,
        ),
        Key(
            "run_folder",
            absolute_path("a folder", most=LONGEST_RUN_FOLDER),
            "Where its sockets and whatever ends with a reboot are.",
            RUN_FOLDER,
            also=("run_dir",),
        ),
        Key(
            "store",
            STORE,
            "The cluster's store: `sqlite:///PATH`, a file on this machine that its agents share, or "
            "`etcd://HOST:PORT,…/PREFIX`, an etcd cluster (`etcds://` by TLS), see [store.md](store.md). "
            "Without it, `store.sqlite` in the data folder.",
            also=("database", "db"),
        ),
        Key("store_tls", STORE_TLS, "How this host and an etcd cluster at `etcds://` know each other."),
        Key(
            "store_login", STORE_LOGIN, "Who this host is to an etcd cluster that asks for users.", also=("store_user",)
        ),
        Key(
            "store_compaction",
            Choice(("alone", "always", "never")),
            "Whether the leader has etcd forget what is older than ten minutes, which is for all of etcd: `alone`, as "
            "long as nobody else has keys there; `always`; `never`, where etcd does it itself.",
            "alone",
        ),
        Key(
            "cgroup_root",
            absolute_path("a cgroup"),
            "The cgroup under which workloads get theirs; found without it.",
            also=("cgroup",),
        ),
        Key("cluster", CLUSTER, "The cluster that this host belongs to.", required=True),
        Key(
            "labels",
            TableOf(LABEL_NAME, LABEL_VALUE, "labels", most=64, heading="LABEL"),
            "Labels that workloads may ask for.",
            also=("label", "tags"),
        ),
        Key(
            "capacity",
            CAPACITY,
            "What this host offers to workloads; without it, what the machine has.",
            also=("resources",),
        ),
        Key(
            "datastore",
            ListOf(DATASTORE, "datastores", most=MOST_DATASTORES),
            "Folders on storage that hosts share.",
            also=("datastores", "storage"),
        ),
        Key(
            "tls",
            TLS,
            "The files with which agents of different hosts know and trust each other.",
        ),
        Key(
            "fencing",
            FENCING,
            "What makes sure that a host has ended: its own watchdog, and the ways to fence others.",
            also=("fence", "stonith"),
        ),
        Key(
            "timing",
            TIMING,
            "Intervals and limits, in seconds where the name ends with _s. They are the whole cluster's and kept in "
            "its store: these are what a new cluster begins with.",
            also=("timings", "timeouts"),
        ),
    )
)
