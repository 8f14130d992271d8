"""Merging: the memory of a chain of checkpoints as one base, page by page the newest.

Blocks that nothing later overrides are taken over as they are, without unpacking. Every block is checked on the way,
so that damage is found here and not written into a base that looks whole. Files are given open; which checkpoints
are merged, and when, is decided in `checkpoint_folder`.
"""

from array import array
from collections.abc import Callable, Sequence

from .checkpoint import PAGE_BYTES, DataFile
from .checkpoint_pages import BLOCK_PAGES, Block, PageWriter, Run, page_count, read_blocks

Source = tuple[int, DataFile]
"""An open file of pages, and what its manifest tells of it."""


def merge(
    sources: Sequence[Source], memory_pages: int, writer: PageWriter, pace: Callable[[int], None] = lambda size: None
) -> None:
    """Write what memory was after the last of `sources`, oldest first. Pages that are zero are left out.

    pace: is told how many bytes were read or written since it was told last; it may take its time.
    Raises CheckpointDamaged.
    """
    newest = _newest(sources, memory_pages, pace)
    number = 0
    loose: list[tuple[int, bytes]] = []
    for fd, told in sources:
        for block in read_blocks(fd, told, memory_pages):
            number += 1
            left = _left(block.data, newest, number)
            if page_count(left) == page_count(block.data):
                if block.data:
                    writer.append_block(Block(block.data, (), block.payload))
            elif left:
                loose += _pages_of(block, left)
                while len(loose) >= BLOCK_PAGES:
                    _put(writer, loose[:BLOCK_PAGES])
                    del loose[:BLOCK_PAGES]
            pace(len(block.payload))
    if loose:
        _put(writer, loose)


def _newest(sources: Sequence[Source], memory_pages: int, pace: Callable[[int], None]) -> "array[int]":
    """For each page the number of the block, from 1 over all sources, that holds it last; 0 for none."""
    newest = array("I", bytes(4 * memory_pages))
    number = 0
    for fd, told in sources:
        for block in read_blocks(fd, told, memory_pages):
            number += 1
            for first, count in (*block.data, *block.zeros):
                newest[first : first + count] = array("I", [number]) * count
            pace(len(block.payload))
    return newest


def _left(runs: Sequence[Run], newest: "array[int]", number: int) -> list[Run]:
    left: list[Run] = []
    for first, count in runs:
        if newest[first : first + count].count(number) == count:
            left.append((first, count))
        else:
            left += [(page, 1) for page in range(first, first + count) if newest[page] == number]
    return left


def _pages_of(block: Block, wanted: Sequence[Run]) -> list[tuple[int, bytes]]:
    content = block.content()
    chosen = {page for first, count in wanted for page in range(first, first + count)}
    found: list[tuple[int, bytes]] = []
    at = 0
    for first, count in block.data:
        for page in range(first, first + count):
            if page in chosen:
                found.append((page, content[at : at + PAGE_BYTES]))
            at += PAGE_BYTES
    return found


def _put(writer: PageWriter, loose: Sequence[tuple[int, bytes]]) -> None:
    writer.append([(page, 1) for page, _ in loose], b"".join(content for _, content in loose))
