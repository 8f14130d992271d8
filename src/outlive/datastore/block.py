"""The 4096 bytes of a slot file as a block whose halves must belong together.

Only the shape is here, so that the worker can look at it without the cluster's key: content, zeros, a checksum of
both, and the tag's 16 bytes. The checksum tells a half-written block from one written with another key; it
protects from nothing else. What the content is, is in `slots`.
"""

import zlib

BLOCK_BYTES = 4096
BLOCK_TAG_BYTES = 16
_CHECKSUM_BYTES = 4
CONTENT_BYTES = BLOCK_BYTES - BLOCK_TAG_BYTES - _CHECKSUM_BYTES


def untagged(content: bytes) -> bytes:
    """The block but for its tag. ValueError when the content does not fit."""
    if len(content) > CONTENT_BYTES:
        raise ValueError(f"{len(content)} bytes do not fit in a block")
    padded = content.ljust(CONTENT_BYTES, b"\0")
    return padded + zlib.crc32(padded).to_bytes(_CHECKSUM_BYTES, "big")


def whole(block: bytes) -> bool:
    """Whether the block was written by one write, as far as its checksum can tell."""
    checksum = block[CONTENT_BYTES : CONTENT_BYTES + _CHECKSUM_BYTES]
    return len(block) == BLOCK_BYTES and zlib.crc32(block[:CONTENT_BYTES]).to_bytes(4, "big") == checksum
