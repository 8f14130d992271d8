"""A host's module table as a file beside its slot.

Pure: bytes and values. A heartbeat names its table by a digest alone; whoever cannot ask the host over the
network reads the table here. The file carries cluster, host and digest under the tag.
"""

import struct
from struct import Struct

from outlive.cluster.heartbeat import DIGEST_BYTES, ModuleTable
from outlive.wire.record import Reason, Refused
from outlive.wire.seal import CLUSTER_BYTES, TAG_BYTES, Seal, Use
from outlive.wire.tables import pack_rows, unpack_rows

VERSION = 1
MOST_FILE_BYTES = 1024 * 1024

_MAGIC = b"OT"
_HEAD = Struct(f">2sBB{CLUSTER_BYTES}s{DIGEST_BYTES}sH")


def pack_table(host: str, table: ModuleTable, seal: Seal) -> bytes:
    """The file's bytes. ValueError or struct.error when the table breaks a bound."""
    name = host.encode("ascii")
    head = _HEAD.pack(_MAGIC, VERSION, len(name), seal.cluster_bytes, table.digest(), len(table.modules))
    data = head + name + pack_rows(table.modules)
    return data + seal.tag(Use.TABLE, data)


def unpack_table(host: str, digest: bytes, raw: bytes, seal: Seal) -> ModuleTable | Refused:
    """The table of `host` that goes by `digest`, or why these bytes are not it. Raises nothing."""
    if not _HEAD.size + TAG_BYTES <= len(raw) <= MOST_FILE_BYTES:
        return Refused(Reason.TRUNCATED, f"{len(raw)} bytes cannot be a module table")
    magic, version, name_length, cluster, named, rows = _HEAD.unpack_from(raw)
    if magic != _MAGIC:
        return Refused(Reason.NOT_OUTLIVE, "it does not begin as module tables do")
    if version != VERSION:
        return Refused(Reason.OTHER_VERSION, f"it has version {version}, this host knows {VERSION}")
    if cluster != seal.cluster_bytes:
        return Refused(Reason.FOREIGN_CLUSTER, f"of cluster {cluster.hex()}")
    data = raw[:-TAG_BYTES]
    if not seal.holds(Use.TABLE, data, raw[-TAG_BYTES:]):
        return Refused(Reason.WRONG_TAG, "damaged, or written with another key")
    start = _HEAD.size + name_length
    if data[_HEAD.size : start] != host.encode("ascii") or named != digest:
        return Refused(Reason.OTHER_HOST, "it is the table of another host or moment")
    try:
        table = ModuleTable(unpack_rows(data[start:], rows))
    except (ValueError, IndexError, struct.error) as error:
        return Refused(Reason.MALFORMED, str(error))
    if table.digest() != digest:
        return Refused(Reason.MALFORMED, "its rows do not have its digest")
    return table
