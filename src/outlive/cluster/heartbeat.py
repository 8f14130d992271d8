"""A host's sign of life: the same record over the network and in its datastore slot.

Here is what a heartbeat says; how it is packed, tagged and refused is in `outlive.wire`. Statuses are two
bits a module, in the order of the module table whose digest the heartbeat carries (US 9,201,744, claim 1:
heartbeats that carry each module's status in binary).
"""

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from hashlib import blake2b

DIGEST_BYTES = 8
MOST_MODULES = 4096


class ModuleStatus(IntEnum):
    """The two bits. STOPPED is final: the module will not run again at this generation."""

    STOPPED = 0
    RUNNING = 1
    FAILED = 2
    RESTORING = 3


class Flags(IntFlag):
    """What a host says of itself besides its modules."""

    NONE = 0
    ISOLATED = 1
    MAINTENANCE = 2
    STORE_REACHABLE = 4
    DATASTORE_REACHABLE = 8


@dataclass(frozen=True, slots=True, order=True)
class ModuleKey:
    """One module of one workload at one generation: a row of a module table."""

    workload: str
    generation: int
    module: str


@dataclass(frozen=True, slots=True)
class ModuleTable:
    """What the status bits of a host's heartbeats stand for, in order."""

    modules: tuple[ModuleKey, ...] = ()

    def digest(self) -> bytes:
        """Eight bytes that name this table; heartbeats carry them instead of the table."""
        text = "\n".join(f"{key.workload} {key.generation} {key.module}" for key in self.modules)
        return blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One sign of life.

    cluster:  the cluster's id, 16 hexadecimal characters.  boot_id: 32 hexadecimal characters (`boot`).
    sequence: grows with every record that the host makes, over restarts and reboots too.
    load:     one-minute load average divided by the number of processors.
    claim:    the host's claim incarnation, 0 when it holds none.
    table:    digest of the module table; statuses: one for each of its rows.
    """

    cluster: str
    host: str
    boot_id: str
    sequence: int
    flags: Flags
    load: float
    claim: int
    table: bytes
    statuses: tuple[ModuleStatus, ...] = ()
