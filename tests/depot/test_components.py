"""A component is what its name says or is not there; what somebody needs is not collected."""

import errno
import io
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlive.cluster.package import Component
from outlive.depot import files, holds
from outlive.depot.components import CHUNK_BYTES, Components, digest_of
from outlive.depot.errors import ComponentDamaged, ComponentMissing, DepotFailed, DepotFull
from outlive.depot.files import try_lock
from outlive.depot.incoming import Incoming

from .package_scene import component, files_in

TEXT = b"port = 80\n" * 10_000
NOISE = os.urandom(50_000)
OLD_S = 0.0
"""As age that is old enough for the collection: whatever it finds."""


@pytest.fixture
def components(tmp_path: Path) -> Components:
    return Components(tmp_path / "depot")


def stored(components: Components, content: bytes) -> Component:
    with components.hold() as hold:
        return components.add(io.BytesIO(content), hold)


def content_of(components: Components, one: Component, offset: int = 0) -> bytes:
    return b"".join(components.read(one, offset))


def test_names_are_blake3() -> None:
    assert digest_of(b"") == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert digest_of(io.BytesIO(TEXT)) == digest_of(TEXT)


@pytest.mark.parametrize("content", [b"", b"x", TEXT, NOISE, NOISE * 50], ids=len)
def test_what_was_stored_is_read_back(components: Components, content: bytes) -> None:
    one = stored(components, content)
    assert one == component(content)
    assert components.has(one)
    assert components.verify(one)
    assert content_of(components, one) == content
    assert all(len(piece) <= CHUNK_BYTES for piece in components.read(one))
    for offset in (1, len(content) // 2, len(content), len(content) + 7):
        assert content_of(components, one, offset) == content[offset:]


def test_what_shrinks_is_kept_compressed_and_what_does_not_is_not(components: Components, tmp_path: Path) -> None:
    text, noise = stored(components, TEXT), stored(components, NOISE)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "depot").rglob("*") if path.is_file()}
    assert sizes[f"{text.digest}.zst"] < len(TEXT) / 10
    assert sizes[noise.digest] == len(NOISE)


def test_compressing_is_only_how_it_is_kept(tmp_path: Path) -> None:
    plain, packed = Components(tmp_path, packed=False), Components(tmp_path)
    one = stored(plain, TEXT)
    assert stored(packed, TEXT) == one
    assert content_of(packed, one) == TEXT
    assert len(files_in(tmp_path)) == 1


def test_the_same_content_is_kept_once(components: Components, tmp_path: Path) -> None:
    assert stored(components, TEXT) == stored(components, TEXT)
    assert files_in(tmp_path / "depot" / "incoming") == []
    assert len(files_in(tmp_path / "depot" / "components")) == 1


def test_one_that_is_not_here_is_told_at_the_first_step(components: Components) -> None:
    one = component(b"elsewhere")
    assert not components.has(one)
    assert not components.verify(one)
    with pytest.raises(ComponentMissing):
        next(components.read(one))


def test_a_size_that_is_not_the_contents_own_is_another_component(components: Components) -> None:
    for content in (TEXT, NOISE):
        one = stored(components, content)
        for size in (one.bytes - 1, one.bytes + 1):
            lie = Component(one.digest, size)
            assert not components.has(lie)
            assert not components.verify(lie)


@pytest.mark.parametrize("content", [TEXT, NOISE], ids=["packed", "plain"])
def test_no_change_on_the_disk_goes_unnoticed(components: Components, tmp_path: Path, content: bytes) -> None:
    one = stored(components, content)
    (path,) = (path for path in (tmp_path / "depot" / "components").rglob("*") if path.is_file())
    whole = path.read_bytes()
    middle = len(whole) // 2
    changed = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for damaged in (changed, whole[:-1], whole[:middle], b"", whole + whole):
        path.write_bytes(damaged)
        assert not components.verify(one)
        with pytest.raises((ComponentDamaged, DepotFailed)):
            content_of(components, one)
    components.discard(one)
    assert not components.has(one)
    assert stored(components, content) == one
    assert components.verify(one)


def test_one_that_is_cut_short_hides_no_whole_one(components: Components, tmp_path: Path) -> None:
    """Such as an older version, or a person, may have left beside what is packed."""
    one = stored(components, TEXT)
    [packed] = (tmp_path / "depot").rglob("*.zst")
    short = packed.with_suffix("")
    short.write_bytes(TEXT[:100])
    assert components.has(one)
    assert content_of(components, one) == TEXT
    assert components.verify(one)
    packed.unlink()
    assert not components.has(one)
    assert not components.verify(one)
    with components.hold() as hold, components.receive(one, hold) as incoming:
        incoming.append(TEXT)
        incoming.finish()
    assert components.verify(one)
    assert not short.exists()


def test_bringing_one_anew_mends_it_however_it_was_kept(components: Components, tmp_path: Path) -> None:
    one = stored(Components(tmp_path / "depot", packed=False), TEXT)
    [plain] = (path for path in (tmp_path / "depot" / "components").rglob("*") if path.is_file())
    plain.write_bytes(b"x" + TEXT[1:])
    assert not components.verify(one)
    with components.hold() as hold, components.receive(one, hold) as incoming:
        incoming.append(TEXT)
        incoming.finish()
    assert components.verify(one)
    assert len(files_in(tmp_path / "depot" / "components")) == 1


def test_a_packed_one_that_is_damaged_is_told_as_such_from_any_offset_on(
    components: Components, tmp_path: Path
) -> None:
    one = stored(components, TEXT)
    [packed] = (tmp_path / "depot").rglob("*.zst")
    whole = packed.read_bytes()
    for damaged in (b"x" + whole[1:], bytes(len(whole)), whole[:4] + b"\xff" + whole[5:]):
        packed.write_bytes(damaged)
        for offset in (0, 5, len(TEXT)):
            with pytest.raises(ComponentDamaged):
                content_of(components, one, offset)


def test_the_last_piece_of_a_damaged_one_is_never_given_out(tmp_path: Path) -> None:
    components = Components(tmp_path, packed=False)
    content = NOISE * 50
    one = stored(components, content)
    (path,) = (path for path in (tmp_path / "components").rglob("*") if path.is_file())
    path.write_bytes(b"x" + content[1:])
    given_out: list[int] = []
    with pytest.raises(ComponentDamaged):
        given_out.extend(len(piece) for piece in components.read(one))
    assert sum(given_out) < len(content)


# --- bringing


@settings(max_examples=30)
@given(st.lists(st.integers(1, 40_000), max_size=6), st.booleans())
def test_bringing_goes_on_where_it_broke_off(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], kept: bool
) -> None:
    folder = tmp_path_factory.mktemp("depot")
    content = NOISE if kept else TEXT
    one = component(content)
    for cut in cuts:
        components = Components(folder)
        with components.hold() as hold, components.receive(one, hold) as incoming:
            incoming.append(content[incoming.offset : incoming.offset + cut])
    components = Components(folder)
    with components.hold() as hold, components.receive(one, hold) as incoming:
        assert incoming.offset == min(sum(cuts), len(content))
        incoming.append(content[incoming.offset :])
        incoming.finish()
    assert content_of(components, one) == content
    assert len(files_in(folder)) == 1


def test_what_is_not_what_its_name_says_is_forgotten(components: Components, tmp_path: Path) -> None:
    one = component(TEXT)
    with components.hold() as hold:
        for wrong in (b"x" + TEXT[1:], TEXT[:-1]):
            with components.receive(one, hold) as incoming:
                incoming.append(wrong)
                with pytest.raises(ComponentDamaged):
                    incoming.finish()
        with components.receive(one, hold) as incoming, pytest.raises(ComponentDamaged, match="not what its name"):
            incoming.append(TEXT + b"x")
        assert files_in(tmp_path / "depot" / "incoming") == []
        assert files_in(tmp_path / "depot" / "components") == []
        with components.receive(one, hold) as incoming:
            assert incoming.offset == 0


def test_a_name_that_is_no_hash_is_refused(components: Components) -> None:
    with components.hold() as hold:
        for digest in ("../../etc/passwd", "A" * 64, "a" * 63, ""):
            with pytest.raises(ComponentDamaged):
                components.receive(Component(digest, 1), hold)


def test_two_may_bring_the_same_at_once(components: Components, tmp_path: Path) -> None:
    one = component(NOISE)
    with components.hold() as hold, components.receive(one, hold) as first, components.receive(one, hold) as second:
        first.append(NOISE[:1000])
        assert second.offset == 0
        second.append(NOISE)
        second.finish()
        assert components.verify(one)
        first.append(NOISE[1000:])
        first.finish()
    assert components.verify(one)
    assert files_in(tmp_path / "depot", but=("collecting.lock", one.digest)) == []


def test_many_writers_and_readers_get_along(components: Components) -> None:
    contents = [os.urandom(3000) + bytes(9000) for _ in range(8)]
    wrong: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(6):
                content = contents[(number * 3 + turn) % len(contents)]
                one = component(content)
                with components.hold() as hold:
                    with components.receive(one, hold) as incoming:
                        incoming.append(content[incoming.offset :])
                        incoming.finish()
                    assert content_of(components, one) == content
                components.collect(list, young_s=OLD_S)
        except BaseException as error:
            wrong.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []
    components.collect(list, young_s=OLD_S)
    assert not any(components.has(component(content)) for content in contents)


def test_what_is_refused_leaves_nothing_open(
    components: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = component(TEXT)
    with components.hold() as hold, components.receive(one, hold) as incoming:
        incoming.append(TEXT[:100])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    with components.hold() as hold:
        before = len(os.listdir("/proc/self/fd"))
        with monkeypatch.context() as patched:
            patched.setattr(holds, "write_all", full)
            with pytest.raises(DepotFull):
                components.hold([one])
        with monkeypatch.context() as patched:
            patched.setattr(Incoming, "go_on", full)
            with pytest.raises(OSError, match="no room"):
                components.receive(one, hold)
        assert len(os.listdir("/proc/self/fd")) == before
        assert len(files_in(tmp_path / "depot" / "holds")) == 1
        with components.receive(one, hold) as incoming:
            assert incoming.offset == 100


# --- collecting


def test_what_nobody_needs_is_collected_and_what_somebody_needs_is_not(components: Components, tmp_path: Path) -> None:
    needed, held, useless = (stored(components, bytes([number]) * 100) for number in range(3))
    with components.hold([held]):
        collected = components.collect(lambda: [needed.digest], young_s=OLD_S)
    assert (collected.removed, collected.bytes) == (1, 100)
    assert [components.has(one) for one in (needed, held, useless)] == [True, True, False]
    assert components.collect(lambda: [needed.digest], young_s=OLD_S).removed == 1
    assert files_in(tmp_path / "depot" / "holds") == []


def test_what_is_young_is_left_to_whoever_brings_more_of_it(components: Components, tmp_path: Path) -> None:
    one, begun = stored(components, b"x"), component(NOISE)
    with components.hold() as hold, components.receive(begun, hold) as incoming:
        incoming.append(NOISE[:100])
    assert components.collect(list).removed == 0
    long_ago = time.time() - 7200
    for path in (tmp_path / "depot").rglob("*"):
        os.utime(path, (long_ago, long_ago))
    assert components.collect(list).removed == 2
    assert not components.has(one)
    assert files_in(tmp_path / "depot") == []


def test_what_is_being_brought_or_read_survives_a_collection(components: Components) -> None:
    read, brought = stored(components, NOISE * 50), component(NOISE)
    reading = components.read(read)
    beginning = next(reading)
    with components.hold() as hold, components.receive(brought, hold) as incoming:
        incoming.append(NOISE[:100])
        assert components.collect(list, young_s=OLD_S).removed == 1
        incoming.append(NOISE[100:])
        incoming.finish()
        assert components.collect(list, young_s=OLD_S).removed == 0
    assert beginning + b"".join(reading) == NOISE * 50
    assert components.verify(brought)


def test_the_clock_may_be_set_back(components: Components, tmp_path: Path) -> None:
    one = stored(components, b"x")
    to_come = time.time() + 7200
    for path in (tmp_path / "depot" / "components").rglob("*"):
        os.utime(path, (to_come, to_come))
    components.collect(list)
    assert not components.has(one)


def test_a_collection_that_looks_at_a_new_file_does_not_get_it(
    components: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has each file's lock for a moment, to see whether somebody else has; that moment passes."""
    looks = iter([False, False])
    monkeypatch.setattr(files, "try_lock", lambda fd, shared=False: next(looks, None) is None and try_lock(fd))
    new = tmp_path / "new"
    fd = files.make_locked(new)
    with open(new, "rb") as another:
        assert not try_lock(another.fileno())
    os.close(fd)


def test_no_hold_begins_while_a_collection_decides(components: Components) -> None:
    one = stored(components, b"x")
    holds: list[bool] = []

    def hold() -> None:
        with components.hold([one]):
            holds.append(components.has(one))

    waiting = threading.Thread(target=hold)

    def needed() -> list[str]:
        waiting.start()
        time.sleep(0.1)
        assert holds == []
        return []

    components.collect(needed, young_s=OLD_S)
    waiting.join()
    assert holds == [False]
