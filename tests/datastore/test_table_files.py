"""A module table's file is believed for the host and digest that it was asked for, and only whole."""

from hypothesis import given
from hypothesis import strategies as st

from outlive.cluster.heartbeat import ModuleKey, ModuleTable
from outlive.datastore.tables import MOST_FILE_BYTES, pack_table, unpack_table
from outlive.wire.record import Reason, Refused
from outlive.wire.seal import Seal, Use

SEAL = Seal("0123456789abcdef", b"k" * 32)
TABLE = ModuleTable((ModuleKey("web", 3, "redis"), ModuleKey("web", 3, "exporter"), ModuleKey("db", 1, "pg")))
RAW = pack_table("a", TABLE, SEAL)


def test_it_is_read_back_as_written() -> None:
    assert unpack_table("a", TABLE.digest(), RAW, SEAL) == TABLE


def test_no_bit_can_be_changed_and_nothing_cut_off() -> None:
    for bit in range(len(RAW) * 8):
        changed = bytearray(RAW)
        changed[bit >> 3] ^= 1 << (bit & 7)
        assert isinstance(unpack_table("a", TABLE.digest(), bytes(changed), SEAL), Refused)
    for length in range(len(RAW)):
        assert isinstance(unpack_table("a", TABLE.digest(), RAW[:length], SEAL), Refused)


@given(st.binary(max_size=300))
def test_even_a_holder_of_the_key_cannot_break_the_reader(rows: bytes) -> None:
    data = RAW[:24] + rows
    assert isinstance(unpack_table("a", TABLE.digest(), data + SEAL.tag(Use.TABLE, data), SEAL), Refused)


def test_each_wrong_thing_has_its_reason() -> None:
    foreign = Seal("fedcba9876543210", b"k" * 32)
    digest = TABLE.digest()
    answers = [
        unpack_table("b", digest, RAW, SEAL),
        unpack_table("a", b"otherone", RAW, SEAL),
        unpack_table("a", digest, pack_table("a", TABLE, foreign), SEAL),
        unpack_table("a", digest, RAW[:2] + b"\x05" + RAW[3:], SEAL),
        unpack_table("a", digest, bytes(MOST_FILE_BYTES + 1), SEAL),
        unpack_table("a", digest, bytes(100), SEAL),
    ]
    assert [answer.reason for answer in answers if isinstance(answer, Refused)] == [
        Reason.OTHER_HOST,
        Reason.OTHER_HOST,
        Reason.FOREIGN_CLUSTER,
        Reason.OTHER_VERSION,
        Reason.TRUNCATED,
        Reason.NOT_OUTLIVE,
    ]
