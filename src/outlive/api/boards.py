"""The exact board of a new machine: one that every host can make, since a guest cannot be moved to another.

Emulators know the boards of their own version and of many before it, so the oldest of the newest ones will do for all.
Hosts that do not answer in time, or have no emulator, have no say.
"""

import asyncio
from collections.abc import Iterable
from urllib.parse import quote

import msgspec

from outlive.cluster import records as rec
from outlive.cluster.machine import MachineType
from outlive.cluster.machine_rules import BOARD_VERSION
from outlive.errors import ClusterUnreachable

from .relaying import told
from .view import View

ASKED_S = 2.0
MOST_BYTES = 4096


class Boards(msgspec.Struct):
    """What one host says: the newest version of each board that it makes."""

    boards: dict[MachineType, str] = {}


def own_boards(view: View) -> Boards:
    """Those of this host."""
    found = {kind: view.local.board(kind) for kind in MachineType}
    return Boards({kind: version for kind, version in found.items() if version is not None})


async def common_board(view: View, kind: MachineType) -> str | None:
    """The newest version of a board that all hosts make; None when none that answers makes any."""
    others = [
        name
        for name in sorted(view.mirror.hosts)
        if name != view.host
        and (verdict := view.mirror.verdicts.get(name)) is not None
        and verdict.record.verdict is rec.Verdict.ALIVE
    ]
    told = [own_boards(view), *await asyncio.gather(*(_told(view, host) for host in others))]
    return oldest(each.boards[kind] for each in told if kind in each.boards)


def oldest(versions: Iterable[str]) -> str | None:
    """The oldest of versions as in pc-q35-7.2; None of none. What is no version is passed over."""
    return min((each for each in versions if BOARD_VERSION.fullmatch(each)), key=_number, default=None)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.rpartition("-")[2].split("."))


async def _told(view: View, host: str) -> Boards:
    try:
        async with asyncio.timeout(ASKED_S):
            answer = await view.ask_peer(host, "GET", f"/v1/hosts/{quote(host, safe='')}/boards", answer_s=ASKED_S)
            try:
                content = await answer.whole(MOST_BYTES, ASKED_S)
            finally:
                answer.close()
        return told(content, Boards) if answer.status == 200 else Boards()
    except (ClusterUnreachable, TimeoutError):
        return Boards()
