"""Messages survive the wire unchanged, and nothing else does."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlive.cluster.heartbeat import MOST_MODULES, Flags, Heartbeat, ModuleKey, ModuleStatus
from outlive.wire.datagram import (
    Message,
    Probe,
    ProbeAnswer,
    ProbeFor,
    ProbeReport,
    TablePart,
    TableRequest,
    pack,
    unpack,
)
from outlive.wire.record import MOST_BYTES, Reason, Refused, close
from outlive.wire.seal import Seal, Use

SEAL = Seal("0123456789abcdef", b"k" * 32)

names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
sequences = st.integers(1, 2**63 - 1)
nonces = st.integers(0, 2**64 - 1)
digests = st.binary(min_size=8, max_size=8)
boot_ids = st.binary(min_size=16, max_size=16).map(bytes.hex)
head = (st.just(SEAL.cluster), names, boot_ids, sequences)
keys = st.builds(ModuleKey, names, st.integers(0, 2**64 - 1), names)

heartbeats = st.builds(
    Heartbeat,
    *head,
    st.integers(0, 15).map(Flags),
    st.floats(0, 1e9),
    st.integers(0, 2**64 - 1),
    digests,
    st.lists(st.sampled_from(ModuleStatus), max_size=40).map(tuple),
)
messages = st.one_of(
    heartbeats,
    st.builds(Probe, *head, nonces, names, names),
    st.builds(ProbeAnswer, *head, nonces, names),
    st.builds(ProbeFor, *head, nonces, names),
    st.builds(ProbeReport, *head, nonces, names, st.booleans()),
    st.builds(TableRequest, *head, digests),
    st.builds(TablePart, *head, digests, st.just(2), st.just(3), st.lists(keys, max_size=7).map(tuple)),
)


@given(messages)
def test_every_message_comes_out_as_it_went_in(message: Message) -> None:
    assert unpack(pack(message, SEAL), SEAL) == message


@settings(max_examples=60)
@given(messages)
def test_no_bit_can_be_changed(message: Message) -> None:
    datagram = pack(message, SEAL)
    for bit in range(len(datagram) * 8):
        changed = bytearray(datagram)
        changed[bit >> 3] ^= 1 << (bit & 7)
        assert isinstance(unpack(bytes(changed), SEAL), Refused)


@settings(max_examples=30)
@given(messages, st.binary(min_size=1, max_size=64))
def test_nothing_can_be_cut_off_or_added(message: Message, more: bytes) -> None:
    datagram = pack(message, SEAL)
    for length in range(len(datagram)):
        assert isinstance(unpack(datagram[:length], SEAL), Refused)
    assert isinstance(unpack(datagram + more, SEAL), Refused)


@given(st.binary(max_size=2000))
def test_garbage_is_refused(data: bytes) -> None:
    assert isinstance(unpack(data, SEAL), Refused)


@given(st.integers(0, 255), names, st.binary(max_size=300))
def test_even_a_holder_of_the_key_cannot_break_the_reader(kind: int, host: str, body: bytes) -> None:
    datagram = close(SEAL, kind, host, "00" * 16, 1, body)
    answer = unpack(datagram, SEAL)
    assert isinstance(answer, Refused) or pack(answer, SEAL) == datagram


def test_a_cut_datagram_says_that_it_was_truncated(seal: Seal, heartbeat: Callable[..., Heartbeat]) -> None:
    assert _reason(unpack(pack(heartbeat(), seal)[:-1], seal)) is Reason.TRUNCATED


def test_a_huge_datagram_is_refused_by_its_size(seal: Seal) -> None:
    assert _reason(unpack(b"OL\x01" + bytes(60_000), seal)) is Reason.TOO_LARGE


@pytest.mark.parametrize("data", [b"", b"O", b"OL", b"OL\x01", b"OL\x01" + bytes(30)])
def test_a_datagram_that_ends_in_its_header_is_too_short(seal: Seal, data: bytes) -> None:
    assert _reason(unpack(data, seal)) is Reason.TOO_SHORT


def test_another_protocol_on_our_port_is_named_as_such(seal: Seal) -> None:
    assert _reason(unpack(b"GET / HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\n\r\n\r\n", seal)) is (
        Reason.NOT_OUTLIVE
    )


def test_an_agent_of_another_version_is_told_by_its_version(seal: Seal, heartbeat: Callable[..., Heartbeat]) -> None:
    datagram = pack(heartbeat(), seal)
    newer = datagram[:2] + b"\x09" + datagram[3:-16]
    newer += seal.tag(Use.DATAGRAM, newer)
    assert unpack(newer, seal) == Refused(Reason.OTHER_VERSION, "it speaks version 9, this host version 1", host=None)
    assert _reason(unpack(b"OL\x09short", seal)) is Reason.OTHER_VERSION


def test_another_cluster_is_refused_whatever_its_key(
    seal: Seal, foreign: Seal, heartbeat: Callable[..., Heartbeat]
) -> None:
    message = heartbeat(cluster=foreign.cluster)
    assert unpack(pack(message, foreign), seal) == Refused(
        Reason.FOREIGN_CLUSTER, "of cluster fedcba9876543210", host=None
    )


def test_another_key_is_refused(seal: Seal, wrong_key: Seal, heartbeat: Callable[..., Heartbeat]) -> None:
    assert _reason(unpack(pack(heartbeat(), wrong_key), seal)) is Reason.WRONG_TAG


def test_a_tag_made_for_another_use_is_wrong(seal: Seal, heartbeat: Callable[..., Heartbeat]) -> None:
    datagram = pack(heartbeat(), seal)[:-16]
    assert _reason(unpack(datagram + seal.tag(Use.SLOT, datagram), seal)) is Reason.WRONG_TAG


def test_the_largest_heartbeat_fits_one_datagram(seal: Seal, heartbeat: Callable[..., Heartbeat]) -> None:
    statuses = tuple(ModuleStatus(number % 4) for number in range(MOST_MODULES))
    largest = replace(heartbeat(), host="h" * 63, statuses=statuses)
    datagram = pack(largest, seal)
    assert len(datagram) <= MOST_BYTES
    assert unpack(datagram, seal) == largest


def test_what_breaks_a_bound_is_not_sent(seal: Seal, heartbeat: Callable[..., Heartbeat]) -> None:
    wrong = [
        replace(heartbeat(), statuses=(ModuleStatus.RUNNING,) * (MOST_MODULES + 1)),
        replace(heartbeat(), table=b"short"),
        replace(heartbeat(), load=float("nan")),
        replace(heartbeat(), load=-1.0),
        replace(heartbeat(), host="Not A Name"),
        replace(heartbeat(), host="h" * 64),
        replace(heartbeat(), boot_id="abcd"),
        replace(heartbeat(), sequence=0),
        replace(heartbeat(), sequence=2**63),
        replace(heartbeat(), cluster="fedcba9876543210"),
    ]
    for message in wrong:
        with pytest.raises(ValueError, match=r"cannot|no load|no boot id|of cluster"):
            pack(message, seal)


def test_a_key_is_never_shown(seal: Seal) -> None:
    assert "6b6b" not in repr(seal)
    assert "kkkk" not in repr(seal)


@pytest.mark.parametrize(
    ("cluster", "key"),
    [("0123456789abcdef", b"short"), ("0123", b"k" * 32), ("0123456789ABCDEF", b"k" * 32)],
)
def test_a_seal_wants_a_whole_key_and_a_cluster_id(cluster: str, key: bytes) -> None:
    with pytest.raises(ValueError, match="cluster"):
        Seal(cluster, key)


def _reason(answer: Message | Refused) -> Reason:
    assert isinstance(answer, Refused), answer
    return answer.reason
