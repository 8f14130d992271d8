"""The seed that a guest's cloud-init reads at its first start: a small FAT file system labelled CIDATA (NoCloud).

Written here byte for byte, without dates or serial numbers of its own, so that every host makes the same seed from the
same texts: a guest whose state is moved must find the medium that it left.
"""

import struct
from collections.abc import Mapping
from pathlib import Path

from outlive.cluster.machine import CloudInit
from outlive.errors import UsageInvalid

SECTOR_BYTES = 512
CLUSTER_SECTORS = 4
MOST_CLUSTERS = 4084
"""With more, it would have to be FAT16."""

_CLUSTER_BYTES = SECTOR_BYTES * CLUSTER_SECTORS
_ROOT_ENTRIES = 32
_LABEL = b"CIDATA     "
_NEW_YEAR_1980 = 0x21
_END_OF_CHAIN = 0xFFF
_NAME_PART = 13


def seed_path(folder: Path) -> Path:
    """Where a machine's seed is, in its folder."""
    return folder / "seed.img"


def seed(texts: CloudInit, identity: str) -> bytes:
    """Return the whole medium.

    identity: what cloud-init goes by to know a first start, unless the texts say otherwise.
    Raises UsageInvalid where they are too long for it (some 8 MB).
    """
    meta = texts.meta_data or f"instance-id: {identity}\nlocal-hostname: {identity}\n"
    files = {"meta-data": meta, "user-data": texts.user_data or "#cloud-config\n"}
    if texts.network_config:
        files["network-config"] = texts.network_config
    return file_system({name: text.encode() for name, text in files.items()})


def file_system(files: Mapping[str, bytes]) -> bytes:
    """Return a FAT12 file system with these files in its root folder."""
    entries = [_entry(_LABEL, 0x08, 0, 0)]
    chains: list[int] = [0xFF8, _END_OF_CHAIN]
    content = bytearray()
    for number, (name, data) in enumerate(files.items()):
        count = -(-len(data) // _CLUSTER_BYTES)
        first = len(chains) if count else 0
        chains += [*range(len(chains) + 1, len(chains) + count), _END_OF_CHAIN] if count else []
        content += data.ljust(count * _CLUSTER_BYTES, b"\0")
        short = f"FILE{number:04d}   ".encode()
        entries += [*_long_name(name, short), _entry(short, 0x20, first, len(data))]
    # Some room to spare: tools take a file system of a handful of sectors for damaged.
    clusters = max(len(chains) - 2, 64)
    if clusters > MOST_CLUSTERS:
        raise UsageInvalid("What cloud-init is to read is too long.", remedy="keep it below 8 MB in all")
    table = _packed(chains + [0] * (clusters + 2 - len(chains)))
    table_sectors = -(-len(table) // SECTOR_BYTES)
    root_sectors = _ROOT_ENTRIES * 32 // SECTOR_BYTES
    sectors = 1 + 2 * table_sectors + root_sectors + clusters * CLUSTER_SECTORS
    table = table.ljust(table_sectors * SECTOR_BYTES, b"\0")
    root = b"".join(entries).ljust(root_sectors * SECTOR_BYTES, b"\0")
    return _boot_sector(sectors, table_sectors) + table + table + root + content.ljust(clusters * _CLUSTER_BYTES, b"\0")


def _boot_sector(sectors: int, table_sectors: int) -> bytes:
    head = b"\xeb\x3c\x90" + b"OUTLIVE "
    small = sectors if sectors < 0x10000 else 0
    large = 0 if small else sectors
    values = struct.pack(
        "<HBHBHHBHHHII", SECTOR_BYTES, CLUSTER_SECTORS, 1, 2, _ROOT_ENTRIES, small, 0xF8, table_sectors, 32, 2, 0, large
    )
    more = struct.pack("<BBBI11s8s", 0x80, 0, 0x29, 0, _LABEL, b"FAT12   ")
    return (head + values + more).ljust(SECTOR_BYTES - 2, b"\0") + b"\x55\xaa"


def _packed(chains: list[int]) -> bytes:
    """Numbers of twelve bits, two in three bytes."""
    packed = bytearray()
    for one, other in zip(chains[::2], [*chains[1::2], 0], strict=False):
        packed += (one | other << 12).to_bytes(3, "little")
    return bytes(packed)


def _entry(short: bytes, attributes: int, first: int, size: int) -> bytes:
    day = _NEW_YEAR_1980
    return struct.pack("<11sBBBHHHHHHHI", short, attributes, 0, 0, 0, day, day, 0, 0, day, first, size)


def _long_name(name: str, short: bytes) -> list[bytes]:
    """The entries before a file's own that hold its real name, the last part first."""
    check = 0
    for byte in short:
        check = ((check >> 1) | (check & 1) << 7) + byte & 0xFF
    parts = [name[at : at + _NAME_PART] for at in range(0, len(name), _NAME_PART)]
    entries = []
    for number, part in enumerate(parts, 1):
        ended = part if len(part) == _NAME_PART else part + "\0"
        text = ended.encode("utf-16-le").ljust(2 * _NAME_PART, b"\xff")
        order = number | (0x40 if number == len(parts) else 0)
        entries.append(
            struct.pack("<B10sBBB12sH4s", order, text[:10], 0x0F, 0, check, text[10:22], 0, text[22:])
        )  # fmt: skip
    return entries[::-1]
