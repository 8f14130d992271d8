"""A journal is read back exactly, or refused with a sentence; never half."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outlive.agent import journal
from outlive.cluster.commands import Held, Journal
from outlive.cluster.workload import Module, Workload

WEB = Workload("web", (Module("server", ("/bin/server", "--port", "80")), Module("logger", ("/bin/logger",))))
KEPT = Journal("run1", 7, 12, (Held(WEB, 3, 12, {"server": 2}, "a.run1.n4"),))


def test_what_was_saved_is_loaded_again(tmp_path: Path) -> None:
    assert journal.load(tmp_path) is None
    journal.save(tmp_path, Journal("run0"))
    journal.save(tmp_path, KEPT)
    assert journal.load(tmp_path) == KEPT
    (only,) = tmp_path.iterdir()
    assert (only.name, only.stat().st_mode & 0o777) == (journal.NAME, 0o600)


def test_a_refused_journal_is_put_aside_and_then_there_is_none(tmp_path: Path) -> None:
    journal.save(tmp_path, KEPT)
    path = tmp_path / journal.NAME
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(journal.JournalBad, match="bytes follow"):
        journal.load(tmp_path)
    assert journal.load(tmp_path) is None
    assert (tmp_path / "journal.bad").exists()


def test_a_journal_of_another_format_version_is_named_as_such(tmp_path: Path) -> None:
    content = journal.encoded(KEPT).replace(b"outlive-journal 1", b"outlive-journal 9", 1)
    with pytest.raises(journal.JournalBad, match="format is b'9'"):
        journal.decoded(tmp_path / "journal", content)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_single_change_of_a_byte_is_noticed(data: st.DataObject) -> None:
    whole = journal.encoded(KEPT)
    at = data.draw(st.integers(0, len(whole) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[at]))
    with pytest.raises(journal.JournalBad):
        journal.decoded(Path("journal"), whole[:at] + bytes([other]) + whole[at + 1 :])


@settings(max_examples=200, deadline=None)
@given(length=st.integers(0, len(journal.encoded(KEPT)) - 1))
def test_any_cut_is_noticed(length: int) -> None:
    with pytest.raises(journal.JournalBad):
        journal.decoded(Path("journal"), journal.encoded(KEPT)[:length])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(content=st.binary(max_size=300))
def test_noise_is_refused_and_nothing_else_is_raised(content: bytes) -> None:
    with pytest.raises(journal.JournalBad):
        journal.decoded(Path("journal"), content)


@settings(max_examples=100, deadline=None)
@given(
    body=st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_a_sound_digest_over_foreign_content_is_still_refused(body: object) -> None:
    import msgspec

    from outlive.agent.journal import _digest

    content = msgspec.json.encode(body)
    if isinstance(body, dict):
        content = msgspec.json.encode({**body, "held": 5})
    head = b"outlive-journal 1 %d %s\n" % (len(content), _digest(content))
    with pytest.raises(journal.JournalBad):
        journal.decoded(Path("journal"), head + content)
