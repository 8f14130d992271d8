"""The protected list is read back as written, or refused with its reason."""

import json

from hypothesis import given
from hypothesis import strategies as st

from outlive.datastore.protected import (
    MOST_FILE_BYTES,
    ProtectedList,
    ProtectedWorkload,
    pack_protected,
    unpack_protected,
)
from outlive.wire.record import Reason, Refused
from outlive.wire.seal import Seal

SEAL = Seal("0123456789abcdef", b"k" * 32)
LIST = ProtectedList("a", 17, (ProtectedWorkload("web", 3, "a"), ProtectedWorkload("db", 1, "")))


def test_it_is_read_back_as_written_and_by_people_too() -> None:
    raw = pack_protected(LIST, SEAL)
    assert unpack_protected(raw, SEAL) == LIST
    assert json.loads(raw)["protected"]["workloads"][0] == {"workload": "web", "generation": 3, "host": "a"}


@given(st.integers(0, 8 * len(pack_protected(LIST, SEAL)) - 1))
def test_no_bit_that_matters_can_be_changed(bit: int) -> None:
    raw = bytearray(pack_protected(LIST, SEAL))
    raw[bit >> 3] ^= 1 << (bit & 7)
    answer = unpack_protected(bytes(raw), SEAL)
    assert isinstance(answer, Refused) or answer == LIST  # white space between values is free


@given(st.binary(max_size=300) | st.recursive(st.none() | st.integers(), st.lists).map(str).map(str.encode))
def test_garbage_is_refused(raw: bytes) -> None:
    assert isinstance(unpack_protected(raw, SEAL), Refused)


def test_each_wrong_thing_has_its_reason() -> None:
    raw = pack_protected(LIST, SEAL)
    foreign = Seal("fedcba9876543210", b"k" * 32)
    impossible = ProtectedList("a", 1, (ProtectedWorkload("../etc", 1, "a"),))
    answers = {
        "cut": raw[: len(raw) // 2],
        "by hand": raw.replace(b"web", b"wab"),
        "foreign": pack_protected(LIST, foreign),
        "other key": pack_protected(LIST, Seal(SEAL.cluster, b"x" * 32)),
        "newer": raw.replace(b'"format": 1', b'"format": 2'),
        "huge": bytes(MOST_FILE_BYTES + 1),
        "deep": b"[" * 100_000,
        "impossible": pack_protected(impossible, SEAL),
    }
    reasons = {}
    for name, wrong in answers.items():
        answer = unpack_protected(wrong, SEAL)
        assert isinstance(answer, Refused), name
        reasons[name] = answer.reason
    assert reasons == {
        "cut": Reason.MALFORMED,
        "by hand": Reason.WRONG_TAG,
        "foreign": Reason.FOREIGN_CLUSTER,
        "other key": Reason.WRONG_TAG,
        "newer": Reason.OTHER_VERSION,
        "huge": Reason.TOO_LARGE,
        "deep": Reason.MALFORMED,
        "impossible": Reason.MALFORMED,
    }
