"""Moving one workload's state: epochs to a standby, checkpoints to a datastore, live migration.

A source cuts its state into steps, a stream carries them in order, a sink keeps the newest whole one. Who may act is
decided elsewhere; here is only what makes the decision harmless: nothing unacknowledged leaves.

A machine's communication manager is `process`, one a machine, told by `comm_config` and spoken to through `control`.
Hot: `primary` cuts epochs with `machine` at the pace of `pace`, `feed` sends them, after `precopy`; `standby` admits a
primary, `follow` keeps its newest whole epoch, `keepalive` watches over both. Under them: `stream` on `link`; `ports`
on `frames`; `kernels`, `tracking` and `memory`; `nbd`, `disk_journal` and `disk_copy` for disks; `qmp_line` and
`device_state` for QEMU. Warm: `warm` and `checkpoint*`.
"""
