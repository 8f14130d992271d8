"""Components that are kept smaller than they are, by zstd, where a sample says that this is worth it.

How a component is kept is nobody's business but the depot's: its name and size are those of its content.
"""

import os
from pathlib import Path
from typing import BinaryIO

import zstandard

from .files import has_room, make_locked, open_file

SMALLEST_BYTES = 4096
HEADER_BYTES = 18
"""The longest that a zstd frame's header can be (RFC 8878)."""
_SAMPLE_BYTES = 128 << 10
_WORTH_IT = 0.8
_LEVEL = 3
_WINDOW_BYTES = 8 << 20

Unreadable = zstandard.ZstdError
"""Raised by reading what was not packed here, or was damaged."""


def pack(fd: int, size: int, path: Path) -> bool:
    """Write a file's content to a new one, smaller and synced; False, and no file, where that is not worth it.

    Nor is it where both would hardly find room beside each other. size: the content's, in bytes. Raises OSError and
    DepotBusy, and leaves no file then.
    """
    packer = zstandard.ZstdCompressor(level=_LEVEL)
    sample = os.pread(fd, _SAMPLE_BYTES, 0)
    if size < SMALLEST_BYTES or len(packer.compress(sample)) > _WORTH_IT * len(sample) or not has_room(fd, size):
        return False
    into = make_locked(path)
    try:
        os.lseek(fd, 0, os.SEEK_SET)
        with open(fd, "rb", closefd=False) as source, open(into, "wb", closefd=False) as target:
            packer.copy_stream(source, target, size=size)
        os.fsync(into)
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(into)
    return True


def open_packed(path: Path) -> BinaryIO:
    """The content of a packed file, which is read in bounded memory. Raises OSError; reading raises Unreadable."""
    unpacker = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES)
    return unpacker.stream_reader(open(open_file(path), "rb"), closefd=True)


def size_told(header: bytes) -> int:
    """The size of the content that a packed file's first bytes tell; -1 when they tell none."""
    try:
        size = zstandard.get_frame_parameters(header).content_size
    except zstandard.ZstdError:
        return -1
    return int(size)
