"""Module tables come together again from parts in any order, and only as what they were."""

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlive.cluster.heartbeat import MOST_MODULES, ModuleKey, ModuleTable
from outlive.wire.datagram import TablePart, pack, unpack
from outlive.wire.seal import Seal
from outlive.wire.tables import MOST_PARTS, MOST_TABLES, TableAssembler, pack_rows, split, unpack_rows

names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
few_names = st.sampled_from(["web", "db", "a" * 63])
keys = st.builds(ModuleKey, few_names | names, st.integers(1, 3), few_names | names)
tables = st.lists(keys, max_size=60).map(lambda rows: ModuleTable(tuple(rows)))


@given(tables, st.randoms(use_true_random=False))
def test_a_table_is_whole_again_whatever_the_order_and_the_repeats(table: ModuleTable, chance: random.Random) -> None:
    parts = list(enumerate(split(table)))
    sent = parts[:-1] + parts
    chance.shuffle(sent)
    assembler = TableAssembler()
    got = [assembler.add("a", table.digest(), number, len(parts), modules) for number, modules in sent]
    assert table in got
    assert all(answer in (None, table) for answer in got)


@given(st.binary(max_size=400), st.integers(0, 70000))
def test_rows_are_read_exactly_or_not_at_all(packed: bytes, count: int) -> None:
    try:
        rows = unpack_rows(packed, count)
    except (ValueError, IndexError, struct.error):
        return
    assert len(rows) == count
    assert unpack_rows(pack_rows(rows), count) == rows


def test_the_largest_table_travels_in_datagrams(seal: Seal) -> None:
    table = ModuleTable(tuple(ModuleKey(f"w{number:062d}", 2**64 - 1, "m" * 63) for number in range(MOST_MODULES)))
    parts, digest = split(table), table.digest()
    assert len(parts) <= MOST_PARTS
    assembler = TableAssembler()
    whole = None
    for number, modules in enumerate(parts):
        message = TablePart(seal.cluster, "h" * 63, "0" * 32, number + 1, digest, number, len(parts), modules)
        assert unpack(pack(message, seal), seal) == message
        whole = assembler.add("a", digest, number, len(parts), modules)
    assert whole == table


def test_a_table_with_another_digest_is_not_believed() -> None:
    table = ModuleTable((ModuleKey("web", 1, "redis"),))
    assert TableAssembler().add("a", b"12345678", 0, 1, table.modules) is None


def test_a_newer_table_replaces_the_one_in_work() -> None:
    rows = tuple(ModuleKey(f"w{number}", 1, "m" * 60) for number in range(40))
    older, newer = ModuleTable(rows), ModuleTable(rows[::-1])
    assembler = TableAssembler()
    first, second = split(newer)[:2]
    assembler.add("a", older.digest(), 0, 3, split(older)[0])
    answers = [
        assembler.add("a", newer.digest(), number, len(split(newer)), modules)
        for number, modules in enumerate(split(newer))
    ]
    assert first != second
    assert answers[-1] == newer


def test_tables_in_work_are_bounded() -> None:
    assembler = TableAssembler()
    row = (ModuleKey("web", 1, "redis"),)
    for number in range(3 * MOST_TABLES):
        assembler.add(f"h{number}", b"12345678", 0, 2, row)
    assert len(assembler._work) == MOST_TABLES


def test_a_table_of_too_many_rows_is_not_split() -> None:
    with pytest.raises(ValueError, match="4097"):
        split(ModuleTable((ModuleKey("web", 1, "redis"),) * (MOST_MODULES + 1)))
