"""The configuration of a primary of which everything but itself is pretended."""

import os
from pathlib import Path

from outlive.replication.comm_config import CommConfig, HotValues
from outlive.replication.memory import PAGE_BYTES


def primary_config(folder: Path, pages: int, *, pairing: int = 1, hot: HotValues | None = None) -> CommConfig:
    """Of machine vm1 in cluster c1 on host a, at generation 1; its QEMU is this very process."""
    return CommConfig(
        role="primary",
        cluster="c1",
        host="a",
        workload="vm1",
        generation=1,
        pairing=pairing,
        state_dir=str(folder),
        qmp=str(folder / "qmp"),
        qemu_pid=os.getpid(),
        ram_path=str(folder / "ram"),
        ram_bytes=pages * PAGE_BYTES,
        pagewatch="",
        hot=hot,
    )
