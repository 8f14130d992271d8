"""Watching links in real network namespaces."""

import asyncio
import errno
import signal
from pathlib import Path
from typing import Any

import pytest

from outlive.network import link_watch
from outlive.network.link_watch import LinkWatch
from outlive.network.links import Link, LinkChange, LinkState

Lan = Any


def test_link_that_comes_back_is_told(lan: Lan) -> None:
    host = lan.host()
    lan.unplug(host)
    assert host.do("next_link_change") == ["eth0", "down"]
    lan.plug_in(host)
    assert host.do("next_link_change") == ["eth0", "running"]


def test_interface_that_is_made_and_removed_is_told(lan: Lan) -> None:
    host = lan.host()
    host.ip("link add spare9 type bridge")
    assert host.do("next_link_change") == ["spare9", "down"]
    host.ip("link set spare9 up")
    assert host.do("next_link_change") == ["spare9", "running"]
    host.ip("link del spare9")
    changes = [host.do("next_link_change")]
    if changes[-1][1] == "down":
        changes.append(host.do("next_link_change"))
    assert changes[-1] == ["spare9", "gone"]


def test_change_that_the_kernel_dropped_for_a_stopped_reader_is_told_when_it_goes_on(lan: Lan, tmp_path: Path) -> None:
    host = lan.host()
    host.ip("link add spare9 up type bridge")
    assert host.do("next_link_change")[0] == "spare9"
    flood = tmp_path / "flood"
    flood.write_text("".join(f"link set dev spare9 mtu {size}\n" for size in range(1000, 3000)))

    host.driver.process.send_signal(signal.SIGSTOP)
    host.run("ip", "-batch", str(flood))
    host.ip("link del spare9")
    host.driver.process.send_signal(signal.SIGCONT)

    while (change := host.do("next_link_change")) != ["spare9", "gone"]:
        assert change[0] == "spare9"


class ToldInstead:
    """What a watch receives in place of the kernel's notices."""

    def __init__(self, *told: tuple[bytes, tuple[int, int]] | OSError) -> None:
        self._told = list(told)

    async def __call__(self, *_: object) -> tuple[bytes, tuple[int, int]]:
        told = self._told.pop(0)
        if isinstance(told, OSError):
            raise told
        return told


@pytest.mark.parametrize(
    "told",
    [
        (OSError(errno.ENOBUFS, "No buffer space available"),),
        ((b"not from the kernel", (4711, 0)), (b"garbled by the kernel", (0, 1))),
    ],
)
async def test_what_was_not_understood_is_made_up_for_by_reading_all_interfaces_again(
    monkeypatch: pytest.MonkeyPatch, told: tuple[tuple[bytes, tuple[int, int]] | OSError, ...]
) -> None:
    listings = iter(
        (
            [Link(2, "eth0", LinkState.RUNNING, returns=1), Link(3, "eth1", LinkState.RUNNING, returns=1)],
            [Link(2, "eth0", LinkState.RUNNING, returns=2)],
        )
    )
    monkeypatch.setattr(link_watch, "_list_links", lambda: next(listings))
    async with LinkWatch() as changes:
        monkeypatch.setattr(asyncio.get_running_loop(), "sock_recvfrom", ToldInstead(*told))
        found = [await anext(changes), await anext(changes)]

    assert found == [LinkChange("eth1", LinkState.GONE), LinkChange("eth0", LinkState.RUNNING)]


async def test_listing_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    listings: list[list[Link] | OSError] = [
        [],
        OSError(errno.ENOBUFS, "No buffer space available"),
        [Link(2, "eth0", LinkState.RUNNING)],
    ]

    def next_listing() -> list[Link]:
        listing = listings.pop(0)
        if isinstance(listing, OSError):
            raise listing
        return listing

    monkeypatch.setattr(link_watch, "_list_links", next_listing)
    monkeypatch.setattr(link_watch, "_PAUSE_AFTER_FAILURE_S", 0.0)
    async with LinkWatch() as changes:
        monkeypatch.setattr(asyncio.get_running_loop(), "sock_recvfrom", ToldInstead((b"garbled", (0, 1))))
        assert await anext(changes) == LinkChange("eth0", LinkState.RUNNING)
