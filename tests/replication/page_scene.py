"""Small guests for the tests of page kernels: their RAM, and ways to write it that hypothesis can draw."""

import os
import random
from pathlib import Path

from hypothesis import strategies as st

from outlive.replication.kernels import Packer, Staging
from outlive.replication.memory import PAGE_BYTES, Memory, Runs

from .page_twin import runs_of

PAGES = 200


def shared_memory(pages: int = PAGES) -> Memory:
    """A RAM file in memory, as QEMU's would be, mapped by us."""
    fd = os.memfd_create("guest")
    try:
        os.ftruncate(fd, pages * PAGE_BYTES)
        return Memory.map_file(Path(f"/proc/self/fd/{fd}"), pages * PAGE_BYTES, writable=True)
    finally:
        os.close(fd)


def stage(memory: Memory, pages: list[int]) -> Staging:
    """Copy these pages of RAM out."""
    staging = Staging(max(1, len(pages)))
    assert staging.copy_out(memory, Runs.of(runs_of(sorted(pages)))) == len(pages)
    return staging


def packed(memory: Memory, pages: list[int], packer: Packer | None = None) -> bytes:
    """Pack these pages of RAM."""
    return bytes((packer or Packer(memory.pages)).encode(stage(memory, pages)))


def write(memory: Memory, page: int, how: str, seed: int) -> None:
    """Write a page as a guest might: all new, a few words, one byte, text, or zeros."""
    draw = random.Random(seed)
    at = page * PAGE_BYTES
    if how == "noise":
        memory.view[at : at + PAGE_BYTES] = draw.randbytes(PAGE_BYTES)
    elif how == "text":
        memory.view[at : at + PAGE_BYTES] = (b"the guest writes line %d " % seed * 400)[:PAGE_BYTES]
    elif how == "zeros":
        memory.view[at : at + PAGE_BYTES] = bytes(PAGE_BYTES)
    elif how == "words":
        for _ in range(draw.randint(1, 300)):
            word = at + draw.randrange(PAGE_BYTES // 8) * 8
            memory.view[word : word + 8] = draw.randbytes(8)
    else:
        memory.view[at + draw.randrange(PAGE_BYTES)] = draw.randrange(256)


writes = st.tuples(
    st.integers(0, PAGES - 1),
    st.sampled_from(("noise", "text", "zeros", "words", "byte")),
    st.integers(0, 1000),
)

epochs = st.lists(st.lists(writes, max_size=80), min_size=1, max_size=5)
