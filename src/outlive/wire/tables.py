"""Module tables as bytes: rows, the parts that fit a datagram, and whole tables put together again.

The rows have the same form in datagrams and in the datastore's files. A row is the workload's name,
generation and module; a row of the same workload and generation as the one before leaves both out. What a
table is for is in `outlive.cluster.heartbeat`. Nobody believes a table with another digest than he asked for.
"""

from struct import Struct

from outlive.cluster.heartbeat import MOST_MODULES, ModuleKey, ModuleTable

from .record import read_name

MOST_PARTS = 640
MOST_PART_BYTES = 1050  # beside the longest envelope and a part's head, within one datagram
MOST_TABLES = 64

_GENERATION = Struct(">Q")


def pack_rows(modules: tuple[ModuleKey, ...]) -> bytes:
    """The rows' bytes, one after the other."""
    packed = bytearray()
    before: tuple[str, int] | None = None
    for key in modules:
        packed += _row(key, before)
        before = (key.workload, key.generation)
    return bytes(packed)


def unpack_rows(packed: bytes, count: int) -> tuple[ModuleKey, ...]:
    """Exactly `count` rows. ValueError, IndexError or struct.error when `packed` holds anything else."""
    if count > MOST_MODULES:
        raise ValueError(f"a table cannot have {count} rows")
    rows: list[ModuleKey] = []
    at, workload, generation = 0, "", 0
    for _ in range(count):
        length, at = packed[at], at + 1
        if length:
            workload, at = read_name(packed[at : at + length]), at + length
            (generation,) = _GENERATION.unpack_from(packed, at)
            at += _GENERATION.size
        elif not workload:
            raise ValueError("the first row names no workload")
        length, at = packed[at], at + 1
        module, at = read_name(packed[at : at + length]), at + length
        rows.append(ModuleKey(workload, generation, module))
    if at != len(packed):
        raise ValueError(f"{len(packed) - at} bytes after the last row")
    return tuple(rows)


def split(table: ModuleTable) -> tuple[tuple[ModuleKey, ...], ...]:
    """The table in parts that each fit a datagram; an empty table is one empty part."""
    if len(table.modules) > MOST_MODULES:
        raise ValueError(f"a table cannot have {len(table.modules)} rows")
    parts: list[tuple[ModuleKey, ...]] = []
    part: list[ModuleKey] = []
    size = 0
    for key in table.modules:
        before = (part[-1].workload, part[-1].generation) if part else None
        more = len(_row(key, before))
        if size + more > MOST_PART_BYTES:
            parts.append(tuple(part))
            part, size, more = [], 0, len(_row(key, None))
        part.append(key)
        size += more
    return (*parts, tuple(part))


class TableAssembler:
    """Puts tables together from parts that come in any order, twice, or never: one table a host at a time.

    A part of another digest than the one in work starts that host's table anew. At most MOST_TABLES hosts are
    in work at once; the one begun longest ago gives way.
    """

    def __init__(self) -> None:
        self._work: dict[str, tuple[bytes, int, dict[int, tuple[ModuleKey, ...]]]] = {}

    def add(
        self, host: str, digest: bytes, part: int, parts: int, modules: tuple[ModuleKey, ...]
    ) -> ModuleTable | None:
        """Take a part; return the table once it is whole and has the digest that it goes by, else None."""
        work = self._work.get(host)
        if work is None or work[0] != digest or work[1] != parts:
            self._work.pop(host, None)
            while len(self._work) >= MOST_TABLES:
                del self._work[next(iter(self._work))]
            work = self._work[host] = (digest, parts, {})
        work[2][part] = modules
        if len(work[2]) < parts:
            return None
        del self._work[host]
        table = ModuleTable(tuple(key for number in range(parts) for key in work[2][number]))
        return table if len(table.modules) <= MOST_MODULES and table.digest() == digest else None


def _row(key: ModuleKey, before: tuple[str, int] | None) -> bytes:
    module = key.module.encode("ascii")
    if before == (key.workload, key.generation):
        return bytes((0, len(module))) + module
    workload = key.workload.encode("ascii")
    return b"".join(
        (
            bytes((len(workload),)),
            workload,
            _GENERATION.pack(key.generation),
            bytes((len(module),)),
            module,
        )
    )
