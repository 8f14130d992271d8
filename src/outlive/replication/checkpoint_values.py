"""What a communication manager is told of checkpoints in its comm.json. The meaning of the policy is `WarmPolicy`'s."""

import msgspec

from .checkpoint import Hardware


class WarmDisk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A disk that belongs to checkpoints: every one that the guest can write to. device: its id in QEMU."""

    name: str
    device: str


class WarmValues(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How checkpoints of this machine are taken.

    datastore: the folder of the datastore that they, and all of the machine's disks, are on.
    hardware:  what they are taken on; see `outlive.replication.checkpoint_hardware`.
    run_lock:  the workload's lock file on a datastore, whose record refuses what is older; None: not asked.
    user, group: those that QEMU runs as; None: whoever owns the disks.
    keep, base_every, interval_s: as in the policy.  named: how many that a person named stay besides.
    slack:       how many older increments may lie below one that stays before they are merged.
    copy_mib_s:  the most that is copied from the running guest's memory a second; None: no limit.
    merge_mib_s: the most that merging reads and writes a second.
    silent_s:    how long the datastore may keep us waiting before a checkpoint is given up.
    resume:      the checkpoint, already made ready by `prepare_resume`, that a waiting QEMU is to go on from.
    """

    datastore: str
    hardware: Hardware
    disks: tuple[WarmDisk, ...] = ()
    run_lock: str | None = None
    user: int | None = None
    group: int | None = None
    interval_s: float = 60.0
    keep: int = 4
    named: int = 4
    slack: int = 8
    base_every: int = 32
    copy_mib_s: float | None = None
    merge_mib_s: float | None = 200.0
    silent_s: float = 20.0
    resume: str | None = None
