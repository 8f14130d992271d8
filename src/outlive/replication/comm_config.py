"""comm.json: everything that a communication manager is told before it starts.

The agent writes the file, the manager reads it once. What changes later (pair, go on alone, adopt) comes over the
control socket, `outlive.replication.control`. The invariant: a manager that read a valid file needs nothing else from
its host's agent in order to hold, replicate and stay silent.
"""

from pathlib import Path
from typing import Literal

import msgspec

from outlive.errors import UsageInvalid
from outlive.replication.checkpoint_values import WarmValues

MOST_CONFIG_BYTES = 1 << 20
PAGE_BYTES = 4096


class Held(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One network card whose frames pass the manager.

    tap:           the persistent tap, made and bridged by the agent, in the manager's network namespace.
    local_socket:  the datagram socket that the manager binds.
    remote_socket: the datagram socket that QEMU binds.
    mac:           as in 52:54:00:12:34:56; announced after a takeover.
    """

    name: str
    tap: str
    local_socket: str
    remote_socket: str
    mac: str


class ReplicatedDisk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One raw, local disk. name: the same on both hosts. node: its block node's name in QEMU."""

    name: str
    node: str
    path: str
    size_bytes: int


class HotValues(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How closely the standby follows; the meaning is that of `outlive.cluster.machine.HotPolicy`.

    unacknowledged: how many epochs may be under way before the guest has to wait for the standby.
    shadow_mib:     memory spent on remembering what the standby holds, so that only changed words are sent.
    progress_s:     how long the peer may live without getting anywhere.
    sync_disks:     the standby's journal is durable before it acknowledges an epoch that wrote to a disk.
    """

    floor_ms: float = 1.0
    idle_ms: float = 100.0
    silence_ms: float = 150.0
    overhead: float = 0.2
    bandwidth_mib_s: float | None = None
    unacknowledged: int = 3
    shadow_mib: int = 128
    progress_s: float = 10.0
    sync_disks: bool = True


class TlsFiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What proves this host to its peer, and the authority that the peer's certificate must come from."""

    ca: str
    certificate: str
    key: str


class CommConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """comm.json. One manager serves one virtual machine on one host for the life of its QEMU process.

    role:       primary: the guest runs here; standby: QEMU waits for its state and the manager listens.
    generation: of the placement that this host acts for, or, for a standby, stands by for.
    pairing:    the placement's. A peer that comes with an older (generation, pairing) is refused.
    qmp:        QEMU's second monitor socket, which nobody else uses.
    ram_path:   the file that is the guest's memory, shared with QEMU; ram_bytes is a multiple of 4096.
    pagewatch:  the file in which the preloaded library says where the memory lies in QEMU.
    hot:        None for a machine that is only checkpointed; then `warm` says how.
    tls:        None is for tests on one machine only.
    """

    role: Literal["primary", "standby"]
    cluster: str
    host: str
    workload: str
    generation: int
    pairing: int
    state_dir: str
    qmp: str
    qemu_pid: int
    ram_path: str
    ram_bytes: int
    pagewatch: str
    nics: tuple[Held, ...] = ()
    disks: tuple[ReplicatedDisk, ...] = ()
    hot: HotValues | None = None
    listen_address: str = "0.0.0.0"  # noqa: S104 - peers prove themselves by certificate
    listen_port: int = 0
    tls: TlsFiles | None = None
    warm: WarmValues | None = None

    @property
    def control_socket(self) -> Path:
        """Where the agent talks to the manager."""
        return control_socket(Path(self.state_dir))


def control_socket(state_dir: Path) -> Path:
    """Where the agent talks to the manager whose state folder this is."""
    return state_dir / "comm.sock"


def read_config(path: Path) -> CommConfig:
    """Read comm.json. Raises UsageInvalid with the reason when it is not one."""
    try:
        if path.stat().st_size > MOST_CONFIG_BYTES:
            raise UsageInvalid(f"{path} is too large for a communication manager's configuration.")
        config = msgspec.json.decode(path.read_bytes(), type=CommConfig)
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UsageInvalid(f"{path} cannot be read.", cause=str(error)) from error
    if config.ram_bytes <= 0 or config.ram_bytes % PAGE_BYTES:
        raise UsageInvalid(f"{path} gives a memory size that is not whole pages.", cause=str(config.ram_bytes))
    if config.role == "standby" and config.hot is None:
        raise UsageInvalid(f"{path} describes a standby of a machine that is not hot.")
    if config.hot is None and config.warm is None:
        raise UsageInvalid(f"{path} describes a machine that is neither hot nor warm.")
    return config


def write_config(path: Path, config: CommConfig) -> None:
    """Write comm.json whole or not at all, readable by its owner."""
    beside = path.with_suffix(".new")
    beside.write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2))
    beside.chmod(0o600)
    beside.replace(path)
