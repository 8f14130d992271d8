"""The keys of what a virtual machine's guest is told, how it is watched, and how its state is kept.

Each key is told here once, for the reader, the JSON Schema and the reference in docs/vm-file.md; the machine's own are
in `machine_shape`.
"""

from outlive.cluster.machine import CloudInit, GuestWatch, HotPolicy, OnPanic, WarmPolicy
from outlive.cluster.machine_rules import LEAST_SILENCE_MS, LONGEST_PATH

from .shapes import Choice, Flag, Number, Text
from .tables import Key, Table, key_of
from .texts import name_of

LONGEST_SEED = 65_536
"""In characters: the whole seed is kept in the cluster's store."""
DAY_S = 86_400.0

SEED = Text(most=LONGEST_SEED)
SEED_FILE = Text("the path of a file", r"[^\x00]+", "Name a file.", least=1, most=LONGEST_PATH)
SECONDS = Number(0, DAY_S)
SOME_SECONDS = Number(0, DAY_S, above=True)


def _seed(name: str, about: str, also: tuple[str, ...]) -> tuple[Key, ...]:
    file = f"A file that holds its `{name}`; beside the workload file, unless the path begins at the root."
    return key_of(CloudInit, name, SEED, about, also=also), Key(f"{name}_file", SEED_FILE, file)


CLOUD_INIT = Table(
    (
        *_seed("user_data", "The user data, mostly a text that begins with #cloud-config.", ("userdata", "user")),
        *_seed("meta_data", "The meta data. Without it, the machine's name.", ("metadata", "meta")),
        *_seed("network_config", "The network's configuration, version 1 or 2.", ("network", "netplan")),
    )
)

WATCH = Table(
    (
        key_of(
            GuestWatch,
            "panic",
            Choice(tuple(OnPanic), made=OnPanic),
            "What follows when the guest says that its kernel panicked: it is restarted, or left for you to look at.",
            also=("on_panic", "on_crash"),
        ),
        key_of(
            GuestWatch,
            "enabled",
            Flag(),
            "Whether a guest that stopped working is reset: its agent is silent, and it reads and writes nothing.",
            also=("enable", "on"),
        ),
        key_of(GuestWatch, "silence_s", SOME_SECONDS, "Seconds for which its agent must have been silent."),
        key_of(
            GuestWatch,
            "no_io_s",
            SOME_SECONDS,
            "Seconds for which it must have done no input or output on disk and network too.",
        ),
        key_of(
            GuestWatch,
            "grace_s",
            SECONDS,
            "Seconds after its start within which it is never reset.",
            also=("grace", "initial_delay"),
        ),
        key_of(
            GuestWatch,
            "resets",
            Number(0, 1000, whole=True),
            "How often it is reset within `window_s`.",
            also=("attempts", "max_resets"),
        ),
        key_of(GuestWatch, "window_s", SOME_SECONDS, "Seconds for which a reset counts.", also=("window",)),
    )
)

WARM = Table(
    (
        key_of(
            WarmPolicy,
            "interval_s",
            Number(1, DAY_S),
            "Seconds from one checkpoint to the next: the most that it goes back.",
            also=("interval", "every"),
        ),
        key_of(
            WarmPolicy,
            "keep",
            Number(1, 1000, whole=True),
            "How many checkpoints are kept.",
            also=("retention", "retain"),
        ),
        key_of(
            WarmPolicy,
            "on",
            name_of("a datastore"),
            "The datastore that they are on. Without it, the one of its disks.",
            also=("datastore",),
        ),
        key_of(
            WarmPolicy,
            "base_every",
            Number(1, 10_000, whole=True),
            "After how many increments a whole checkpoint is written again.",
        ),
    )
)

HOT = Table(
    (
        key_of(
            HotPolicy,
            "floor_ms",
            Number(0.1, 1000),
            "Milliseconds: the shortest time from one epoch to the next.",
            also=("floor", "interval_ms"),
        ),
        key_of(
            HotPolicy,
            "idle_ms",
            Number(1, 10_000),
            "Milliseconds: the longest time from one epoch to the next, while nobody waits.",
            also=("idle",),
        ),
        key_of(
            HotPolicy,
            "silence_ms",
            Number(LEAST_SILENCE_MS, 60_000),
            "Milliseconds for which the link must be silent before the standby asks to take over.",
            also=("silence", "timeout_ms", "threshold_ms"),
        ),
        key_of(
            HotPolicy,
            "overhead",
            Number(0.01, 0.95),
            "The share of a busy guest's time that it may be paused for epochs; they become rarer to keep it.",
        ),
        key_of(
            HotPolicy,
            "bandwidth_mib_s",
            Number(1, 1_000_000),
            "The most that is sent to the standby, in MiB a second. Without it, as fast as it goes.",
            also=("bandwidth", "max_bandwidth"),
        ),
    )
)
