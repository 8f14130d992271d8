"""Checkpoints made by hand, without a machine: small memory, pages by number."""

import os
from collections.abc import Mapping
from pathlib import Path

from outlive.replication.checkpoint import FORMAT, Checkpoint, DiskChain, Hardware
from outlive.replication.checkpoint_files import make_file, write_state
from outlive.replication.checkpoint_folder import begin, begin_reign, chain_of, commit, folder_of
from outlive.replication.checkpoint_pages import PageWriter, read_blocks

HARDWARE = Hardware("7.2.22", "pc-q35-7.2", "qemu64", "tcg", 1, 1, ("-device x",))
PAGES = HARDWARE.memory_mib * 256
STREAM = b"QEVM" + bytes(100)


def datastore_with_folder(tmp_path: Path, generation: int = 1) -> Path:
    """A workload's folder in which that generation reigns."""
    (tmp_path / "checkpoints").mkdir()
    folder = folder_of(tmp_path, "web")
    begin_reign(folder, generation, "a")
    return folder


def page(content: str | int) -> bytes:
    """A page that is not zero and is known by its content."""
    return f"{content}|".encode().ljust(4096, b"x")


def made(
    folder: Path,
    pages: Mapping[int, bytes],
    parent: Checkpoint | None = None,
    *,
    generation: int = 1,
    disks: tuple[DiskChain, ...] = (),
    label: str = "",
) -> Checkpoint:
    """A whole checkpoint. pages: those written since the parent, or ever."""
    checkpoint = unfinished(folder, pages, parent, generation=generation, disks=disks, label=label)
    commit(folder, checkpoint)
    return checkpoint


def unfinished(
    folder: Path,
    pages: Mapping[int, bytes],
    parent: Checkpoint | None = None,
    *,
    generation: int = 1,
    disks: tuple[DiskChain, ...] = (),
    label: str = "",
) -> Checkpoint:
    """All of a checkpoint but its manifest."""
    name, sequence = begin(folder, generation)
    fd = make_file(folder / name / "memory.pages")
    writer = PageWriter(fd)
    for number, content in pages.items():
        writer.append([(number, 1)], content)
    os.close(fd)
    device = write_state(folder / name / "device.state", STREAM)
    return Checkpoint(
        FORMAT, "web", name, generation, sequence, parent.name if parent else None, "a", 1.5, "test",
        HARDWARE, writer.finish("memory.pages"), device, disks, 2.0, label,
    )  # fmt: skip


def memory_of(folder: Path, name: str) -> dict[int, bytes]:
    """The pages that are not zero, as a checkpoint's chain gives them."""
    found: dict[int, bytes] = {}
    for one in chain_of(folder, name):
        with (folder / one.name / one.memory.name).open("rb") as file:
            for block in read_blocks(file.fileno(), one.memory, PAGES):
                content = block.content()
                for first, count in block.data:
                    for number in range(first, first + count):
                        found[number], content = content[:4096], content[4096:]
                for first, count in block.zeros:
                    for number in range(first, first + count):
                        found.pop(number, None)
    return found
