"""How a machine and its replica stand, as the host where it runs tells it, for whoever looks at the workload.

Where that is another host it is asked, for a second at most, and not again for a moment: who polls costs that agent
little, and a host that does not answer costs whoever looks nothing.
"""

import asyncio
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from outlive.cluster import records as rec
from outlive.errors import ClusterUnreachable

from . import relaying
from .view import View

ASKED_S = 1.0
FRESH_S = 0.3
SILENT_S = 3.0
"""How long a host that did not answer is not asked again."""
MOST_TOLD_BYTES = 64 * 1024
MOST_KEPT = 1000


@dataclass(frozen=True, slots=True)
class _Told:
    host: str
    until: float
    machine: dict[str, Any] | None


class Following:
    """Asks for machines. Around one agent's view."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._kept: dict[str, _Told] = {}

    async def of(self, name: str) -> dict[str, Any]:
        """`{machine, replica}` of a workload; {} of a service. Each is None where nothing is known."""
        wanted = self._view.mirror.workloads.get(name)
        if wanted is None or wanted.record.workload.machine is None:
            return {}
        placed = self._view.mirror.placements.get(name)
        if placed is None or placed.record.host is None:
            return {"machine": None, "replica": None}
        machine = await self._machine(name, placed.record.host)
        return {"machine": machine, "replica": self._replica(placed.record, machine)}

    async def _machine(self, name: str, host: str) -> dict[str, Any] | None:
        if host == self._view.host:
            return self._view.local.told(name)
        kept = self._kept.get(name)
        if kept is not None and kept.host == host and self._view.now() < kept.until:
            return kept.machine
        verdict = self._view.mirror.verdicts.get(host)
        if verdict is not None and verdict.record.verdict is not rec.Verdict.ALIVE:
            return None
        machine, for_s = None, FRESH_S
        try:
            async with asyncio.timeout(ASKED_S):
                machine = await self._asked(name, host)
        except (ClusterUnreachable, TimeoutError):
            for_s = SILENT_S
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[name] = _Told(host, self._view.now() + for_s, machine)
        return machine

    async def _asked(self, name: str, host: str) -> dict[str, Any] | None:
        path = f"/v1/hosts/{quote(host, safe='')}/machines/{quote(name, safe='')}"
        answer = await self._view.ask_peer(host, "GET", path, answer_s=ASKED_S)
        try:
            content = await answer.whole(MOST_TOLD_BYTES, ASKED_S)
        finally:
            answer.close()
        if answer.status != 200:
            return None
        return relaying.told(content, dict[str, Any])

    def _replica(self, placed: rec.PlacementRecord, machine: dict[str, Any] | None) -> dict[str, Any] | None:
        if placed.standby is None:
            return None
        said = self._view.mirror.standbys.get(placed.workload)
        mine = said is not None and (said.record.host, said.record.pairing) == (placed.standby, placed.pairing)
        state = said.record.stage.value if said is not None and mine else "asked for"
        reason = said.record.reason if said is not None and mine else ""
        seeding = machine["seeding"] if machine is not None and machine.get("pairing") == placed.pairing else None
        if placed.paired:
            state = "paired"
        elif isinstance(seeding, dict):
            state = "seeding"
        copied = {"done_bytes": 0, "total_bytes": 0, "round": 0}
        copied |= seeding if isinstance(seeding, dict) and not placed.paired else {}
        return {"host": placed.standby, "state": state, "reason": reason, "pairing": placed.pairing, **copied}
