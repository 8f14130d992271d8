"""QEMU's disks for checkpoints: which layers it has open, putting new ones on at the cut, merging old ones live.

Over a monitor line of our own. The guest is never stopped for any of this but the snapshot itself, which is one
command of the cut. Which layers may be merged is said by `checkpoint_keeping`.
"""

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .checkpoint import MOST_CHAIN, DiskChain, DiskLayer
from .checkpoint_errors import CheckpointFailed
from .checkpoint_files import backing_name, layer_of
from .qmp_line import QemuRefused, QmpLine, command

MERGE_S = 3600.0
POLL_S = 0.2
_MOST_NODE_CHARACTERS = 31
_FORMATS = ("raw", "qcow2")


@dataclass(frozen=True, slots=True)
class Drive:
    """A disk as QEMU has it now. node: the block node that the guest writes to."""

    chain: DiskChain
    node: str


@dataclass(frozen=True, slots=True)
class Plugged:
    """Which device of QEMU a disk of the machine is. device: the id that it was started with."""

    name: str
    device: str


def drives(qmp: QmpLine, datastore: Path, disks: Sequence[Plugged]) -> list[Drive]:
    """What the disks consist of now. Raises CheckpointFailed when one is not on the datastore; QemuSilent."""
    found = {str(block.get("qdev", "")): block for block in qmp.run("query-block") if "inserted" in block}
    told: list[Drive] = []
    for disk in disks:
        block = next((block for path, block in found.items() if disk.device in path.split("/")), None)
        if block is None:
            raise CheckpointFailed(f"QEMU has no disk {disk.name}.", cause=f"it knows {', '.join(found) or 'none'}")
        told.append(Drive(_chain(disk.name, block["inserted"]["image"], datastore), block["inserted"]["node-name"]))
    return told


def plug_layers(qmp: QmpLine, datastore: Path, disks: Sequence[DiskChain]) -> list[str]:
    """Let QEMU open the topmost layers, not in use yet; return their nodes. Raises QemuRefused, QemuSilent."""
    nodes: list[str] = []
    for disk in disks:
        path = datastore / disk.layers[-1].path
        node = "-".join(("layer", *path.stem.rsplit(".", 1)[::-1]))[:_MOST_NODE_CHARACTERS]
        file = {"driver": "file", "filename": str(path), "aio": "threads", "discard": "unmap"}
        qmp.run(
            "blockdev-add", {"driver": "qcow2", "node-name": node, "file": file, "backing": None, "discard": "unmap"}
        )
        nodes.append(node)
    return nodes


def unplug_layers(qmp: QmpLine, nodes: Sequence[str]) -> None:
    """Let QEMU close layers that were not used. Raises QemuRefused, QemuSilent."""
    for node in nodes:
        qmp.run("blockdev-del", {"node-name": node})


def drop_unused(qmp: QmpLine, datastore: Path, drives: Sequence[Drive]) -> None:
    """Let QEMU close layers that no disk lies on any more. Raises QemuSilent.

    It does not do so by itself for what was added by name; and what it kept open would still lie on other layers, and
    be asked for when these are merged. What a device uses is refused by QEMU and stays.
    """
    used = {layer.path for drive in drives for layer in drive.chain.layers}
    for kinds in (_FORMATS, ("file",)):
        named = _named(qmp, datastore, kinds)
        for path, node in reversed(named):
            if path not in used and not node.startswith("#"):
                with contextlib.suppress(QemuRefused):
                    qmp.run("blockdev-del", {"node-name": node})


def snapshot_command(drives: Sequence[Drive], nodes: Sequence[str]) -> bytes:
    """The command after which the guest writes to the new layers: all of them, or, when it fails, none."""
    actions = [
        {"type": "blockdev-snapshot", "data": {"node": drive.node, "overlay": node}}
        for drive, node in zip(drives, nodes, strict=True)
    ]
    return command("transaction", {"actions": actions})


def merge_layers(
    qmp: QmpLine,
    datastore: Path,
    drive: Drive,
    layers: Sequence[DiskLayer],
    stopped: Callable[[], bool],
    mib_s: float | None,
) -> bool:
    """Merge the layers into the lowest of them while the guest runs; False when `stopped` became true before.

    The topmost layer of the drive is never among them.
    Raises CheckpointFailed, QemuRefused, QemuSilent. An interrupted merge harms nothing and can be begun again.
    """
    begin = drive.chain.layers.index(layers[0])
    assert drive.chain.layers[begin : begin + len(layers)] == tuple(layers)
    nodes = dict(_named(qmp, datastore, _FORMATS))
    above = datastore / drive.chain.layers[begin + len(layers)].path
    job = f"merge-{drive.chain.name}"
    qmp.run(
        "block-commit",
        {
            "job-id": job,
            "device": drive.node,
            "top-node": nodes[layers[-1].path],
            "base-node": nodes[layers[0].path],
            "backing-file": backing_name(above, datastore / layers[0].path),
            "speed": int((mib_s or 0) * 1048576),
        },
    )
    asked_to_stop = False

    def ended() -> bool:
        nonlocal asked_to_stop
        jobs = [one for one in qmp.run("query-block-jobs") if one["device"] == job]
        if jobs and stopped() and not asked_to_stop:
            asked_to_stop = True
            qmp.run("block-job-cancel", {"device": job})
        return not jobs

    qmp.wait(ended, within_s=MERGE_S, nap_s=POLL_S)
    if asked_to_stop:
        return False
    failed = [data for name, data in qmp.events if name == "BLOCK_JOB_COMPLETED" and data.get("error")]
    if any(data.get("device") == job for data in failed):
        raise CheckpointFailed(
            f"The layers of disk {drive.chain.name} were not merged.", cause=str(failed[-1]["error"])
        )
    return True


def _chain(name: str, image: dict[str, Any], datastore: Path) -> DiskChain:
    layers: list[DiskLayer] = []
    size = int(image["virtual-size"])
    below: dict[str, Any] | None = image
    while below is not None and len(layers) < MOST_CHAIN:
        try:
            layers.append(layer_of(datastore, _file_of(below["filename"]), below["format"]))
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointFailed(
                f"Disk {name} is not on the datastore of the checkpoints.",
                cause=str(below["filename"])[:200],
                remedy="put the disk on that datastore, or name the disk's as the checkpoints'",
            ) from error
        below = below.get("backing-image")
    return DiskChain(name, size, tuple(layers[::-1]))


def _file_of(name: str) -> Path:
    """The file behind what QEMU calls a node, who tells more than a path where a layer was put on by name."""
    if not name.startswith("json:"):
        return Path(name)
    told: Any = json.loads(name.removeprefix("json:"))
    while "filename" not in told:
        told = told["file"]
    return Path(told["filename"])


def _named(qmp: QmpLine, datastore: Path, kinds: Sequence[str]) -> list[tuple[str, str]]:
    """The nodes of these drivers that have a file on the datastore: its path below that, and the node's name."""
    found: list[tuple[str, str]] = []
    for node in qmp.run("query-named-block-nodes", {"flat": True}):
        path = Path(os.path.normpath(_file_of(node["file"])))
        if node["drv"] in kinds and path.is_relative_to(os.path.normpath(datastore)):
            found.append((layer_of(datastore, path, node["drv"]).path, node["node-name"]))
    return found
