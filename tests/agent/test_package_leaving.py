"""What leaves a host's depot has gone from nobody who needs it, however old what the host knows."""

import os
from pathlib import Path

import pytest

from outlive.agent.package_leaving import TIDY_S
from outlive.agent.package_needs import ARRIVING_S
from outlive.cluster.commands import KeepPackages, KeptPackage
from outlive.cluster.pushed import DepotRecord, Pinned

from ..depot.package_scene import component, files_in
from .package_host import Host, archive, record_of


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "data")


async def pushed(host: Host, folder: Path) -> Pinned:
    """A package that was pushed here a while ago."""
    pinned = await host.push(archive(folder))
    host.now += ARRIVING_S
    return pinned


def holds(host: str, *packages: Pinned) -> DepotRecord:
    return DepotRecord(host, {each.id: each.key for each in packages})


async def test_a_wish_that_is_older_than_a_package_drops_nothing_of_it(host: Host, tmp_path: Path) -> None:
    pinned = await pushed(host, tmp_path)
    host.removes(pinned)
    host.follows = False
    host.writes(record_of(pinned))  # pushed again, as the depot still has it, and the agent does not know
    host.packages.keep(KeepPackages((), (pinned.id,)))
    await host.looks_around()
    assert host.packages.shelf.ids() == {pinned.id}
    host.follows = True
    host.writes()
    host.packages.keep(KeepPackages((), (pinned.id,)))  # now it knows, and this wish is from before
    host.follows = False
    await host.looks_around()
    assert host.packages.shelf.ids() == {pinned.id}


async def test_nothing_leaves_as_long_as_it_is_not_known_what_is_wanted(host: Host, tmp_path: Path) -> None:
    host.follows = False
    pinned = await pushed(host, tmp_path)
    await host.looks_around()
    await host.packages._leaving.tidy()
    assert host.packages.shelf.ids() == {pinned.id}


async def test_one_too_many_goes_once_the_others_have_it_by_what_the_store_says_now(host: Host, tmp_path: Path) -> None:
    pinned = await pushed(host, tmp_path)
    host.writes(record_of(pinned, ("b", "c")), holds("b", pinned), holds("c"))
    await host.looks_around()
    assert host.packages.shelf.ids() == {pinned.id}
    host.writes(holds("c", pinned))
    await host.looks_around()
    assert host.packages.shelf.ids() == frozenset()


async def test_what_is_about_to_go_is_told_of_no_more_before_it_goes(host: Host, tmp_path: Path) -> None:
    """Of two that would both let go, at least one looks after the other has said so."""
    pinned = await pushed(host, tmp_path)
    host.writes(record_of(pinned, ("b",)), holds("b", pinned))
    await host.packages._let_go()
    assert host.picture.depots["a"].record.holds == {}
    assert host.packages.shelf.ids() == {pinned.id}
    # Meanwhile b does the same for us, since the leader named us again, and we have not seen that.
    host.follows = False
    host.writes(record_of(pinned, ("a",)), holds("b"))
    await host.packages._let_go()
    assert host.packages.shelf.ids() == {pinned.id}
    host.follows = True
    await host.looks_around()
    assert host.packages.shelf.ids() == {pinned.id}
    assert host.picture.depots["a"].record.holds == {pinned.id: pinned.key}


async def test_what_is_about_to_go_stays_when_it_is_wanted_again(host: Host, tmp_path: Path) -> None:
    pinned = await pushed(host, tmp_path)
    host.removes(pinned)
    await host.packages._let_go()
    host.packages.keep(KeepPackages((KeptPackage(pinned, ()),)))
    await host.packages._let_go()
    assert host.packages.shelf.ids() == {pinned.id}
    assert host.picture.depots["a"].record.holds == {pinned.id: pinned.key}


async def test_what_was_half_brought_is_cleared_away_after_a_while(host: Host, tmp_path: Path) -> None:
    pinned = await pushed(host, tmp_path)
    shelf, content = host.packages.shelf, b"half of it"
    half = component(content + b" and more")
    with shelf.hold() as hold, shelf.components.receive(half, hold) as incoming:
        incoming.append(content)
    [path] = (shelf.folder / "incoming").iterdir()
    await host.packages._let_go()
    host.now += TIDY_S
    await host.packages._let_go()
    assert path.exists()  # whoever fetches it again goes on there
    os.utime(path, (0, 0))
    host.now += TIDY_S
    await host.packages._let_go()
    assert files_in(shelf.folder / "incoming") == []
    assert shelf.verify(pinned.id) is None
