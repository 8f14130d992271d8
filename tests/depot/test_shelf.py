"""A package is on the shelf whole or not at all; it is brought piece by piece, and going on is cheap."""

from pathlib import Path

import msgspec
import pytest

from outlive.cluster.package import Component
from outlive.depot.components import digest_of
from outlive.depot.errors import ComponentMissing, PackageInvalid, PackageMissing
from outlive.depot.package import manifest_bytes
from outlive.depot.shelf import Damage, Shelf

from .package_scene import FILES, bring, component, files_in, on_shelf

AT_ONCE_S = 0.0


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "depot")


@pytest.fixture
def other(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "other")


def test_a_depot_that_was_never_used_is_empty_and_nothing_is_made_by_looking(shelf: Shelf) -> None:
    assert shelf.ids() == frozenset()
    assert not shelf.remove("a" * 64)
    with pytest.raises(PackageMissing):
        shelf.manifest("a" * 64)
    assert not shelf.folder.exists()


@pytest.mark.parametrize("id", ["", "../../../etc/passwd", "web", "A" * 64])
def test_what_is_no_id_is_no_package(shelf: Shelf, id: str) -> None:
    on_shelf(shelf)
    assert not shelf.remove(id)
    with pytest.raises(PackageMissing):
        shelf.manifest(id)


def test_a_package_travels_from_shelf_to_shelf(shelf: Shelf, other: Shelf) -> None:
    id = on_shelf(shelf)
    bring(shelf.manifest(id), shelf, other)
    assert other.ids() == {id}
    assert other.manifest(id) == shelf.manifest(id)
    assert other.verify(id) is None
    bring(shelf.manifest(id), shelf, other)
    assert other.ids() == {id}


def test_only_what_is_missing_is_brought(shelf: Shelf, other: Shelf) -> None:
    old = on_shelf(shelf, version="1.0.0")
    new = on_shelf(shelf, version="1.1.0", files={**FILES, "bin/run": b"#!/bin/sh\n"})
    bring(shelf.manifest(old), shelf, other)
    with other.receive(shelf.manifest(new)) as reception:
        assert reception.missing() == (component(b"#!/bin/sh\n"),)


def test_a_package_is_not_there_until_it_is_whole_and_what_came_serves_the_next_try(shelf: Shelf, other: Shelf) -> None:
    id = on_shelf(shelf)
    manifest = shelf.manifest(id)
    first, second = manifest.components
    with other.receive(manifest) as reception:
        with reception.receive(first) as incoming:
            incoming.append(b"".join(shelf.components.read(first)))
            incoming.finish()
        with pytest.raises(ComponentMissing, match="1 components"):
            reception.finish()
        other.collect(young_s=AT_ONCE_S)
    assert other.ids() == frozenset()
    with other.receive(manifest) as reception:
        assert reception.missing() == (second,)
    other.collect()
    assert other.components.has(first)


def test_a_reception_takes_nothing_else(shelf: Shelf, other: Shelf) -> None:
    id = on_shelf(shelf)
    with other.receive(shelf.manifest(id)) as reception:
        for one in (component(b"else"), Component(component(FILES["bin/run"]).digest, 1)):
            with pytest.raises(PackageInvalid, match="none of web"):
                reception.receive(one)


def test_breaking_off_leaves_nothing_but_what_others_need(shelf: Shelf, other: Shelf) -> None:
    small = on_shelf(shelf, version="1.0.0", files={"etc/web.conf": FILES["etc/web.conf"]})
    large = on_shelf(shelf, version="1.1.0")
    bring(shelf.manifest(small), shelf, other)
    before = files_in(other.folder)
    with other.receive(shelf.manifest(large)) as reception:
        (missing,) = reception.missing()
        with reception.receive(missing) as incoming:
            incoming.append(b"".join(shelf.components.read(missing)))
            incoming.finish()
        reception.discard()
    assert files_in(other.folder) == before
    assert other.verify(small) is None


def test_a_manifest_that_nobody_would_take_is_refused(shelf: Shelf) -> None:
    manifest = shelf.manifest(on_shelf(shelf))
    with pytest.raises(PackageInvalid):
        shelf.receive(msgspec.structs.replace(manifest, name="../web"))


def test_what_is_taken_from_the_shelf_is_collected_unless_another_needs_it(shelf: Shelf) -> None:
    old = on_shelf(shelf, version="1.0.0")
    new = on_shelf(shelf, version="1.1.0", files={"etc/web.conf": FILES["etc/web.conf"]})
    assert shelf.collect(young_s=AT_ONCE_S).removed == 0
    assert shelf.remove(old)
    assert not shelf.remove(old)
    assert shelf.collect(young_s=AT_ONCE_S).removed == 1
    assert shelf.verify(new) is None
    assert shelf.remove(new)
    assert shelf.collect(young_s=AT_ONCE_S).removed == 1
    assert files_in(shelf.folder) == []


def test_damage_is_found_and_mended_by_bringing_it_anew(shelf: Shelf, other: Shelf) -> None:
    id = on_shelf(shelf)
    bring(shelf.manifest(id), shelf, other)
    conf = component(FILES["etc/web.conf"])
    (path,) = (other.folder / "components").rglob(f"{conf.digest}*")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert other.verify(id) == Damage(id, (conf,))
    assert other.verify(id, repair=True) == Damage(id, (conf,))
    assert other.ids() == frozenset()
    with other.receive(shelf.manifest(id)) as reception:
        assert reception.missing() == (conf,)
    bring(shelf.manifest(id), shelf, other)
    assert other.verify(id) is None


def test_a_damaged_manifest_is_none_and_the_package_can_come_again(shelf: Shelf) -> None:
    id = on_shelf(shelf)
    path = shelf.folder / "packages" / id
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PackageMissing) as caught:
        shelf.manifest(id)
    assert "damaged" in caught.value.cause
    assert shelf.ids() == frozenset()
    assert on_shelf(shelf) == id
    path.write_bytes(b"")
    assert shelf.collect(young_s=AT_ONCE_S).removed == 2
    with pytest.raises(PackageMissing):
        shelf.verify(id)


def test_nothing_is_collected_while_a_manifest_of_a_later_version_is_here(shelf: Shelf) -> None:
    id = on_shelf(shelf)
    raw = manifest_bytes(msgspec.structs.replace(shelf.manifest(id), format=2))
    later = digest_of(raw)
    (shelf.folder / "packages" / later).write_bytes(raw)
    with pytest.raises(PackageInvalid):
        shelf.manifest(later)
    with pytest.raises(PackageInvalid):
        shelf.collect(young_s=AT_ONCE_S)
    assert shelf.ids() == {id, later}
    assert shelf.remove(later)
    assert shelf.collect(young_s=AT_ONCE_S).removed == 0
