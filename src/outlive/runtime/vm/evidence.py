"""Looking at a guest from outside: does its agent answer, and do its disks and cards do anything.

What follows from it is decided in `guest_watch`. The counters of a card are those of its tap, and of what the guest
sends alone: frames come in for a guest that hangs, too.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from outlive.errors import OutliveError

from . import guest_agent
from .guest_watch import Look
from .qmp import Monitor
from .seat import Seat, Tap

AGENT_ANSWERS_WITHIN_S = 3.0
_NET_DEV = Path("/proc/thread-self/net/dev")


async def look(monitor: Monitor, seat: Seat, at: float) -> Look:
    """Return what is to be seen of a guest that has an agent. at: boot clock, seconds."""
    try:
        status = await monitor.call("query-status")
        blocks = await monitor.call("query-blockstats")
    except OutliveError:
        return Look(at, running=False, answered=False)
    running = isinstance(status, dict) and status.get("running") is True
    answered = running and await guest_agent.answers(seat.guest_agent, AGENT_ANSWERS_WITHIN_S)
    return Look(at, running, answered, {**disk_counters(blocks), **await asyncio.to_thread(_card_counters, seat)})


def disk_counters(blocks: Any) -> dict[str, int]:
    """Read what each device has done from the answer to `query-blockstats`."""
    counters: dict[str, int] = {"looked": 1}
    for block in blocks if isinstance(blocks, list) else ():
        stats = block.get("stats", {})
        name = block.get("qdev") or block.get("node-name") or block.get("device")
        for counted in ("rd_operations", "wr_operations", "flush_operations"):
            counters[f"{name} {counted}"] = int(stats.get(counted, 0))
    return counters


def _card_counters(seat: Seat) -> dict[str, int]:
    taps = {(end.name if isinstance(end, Tap) else end.tap): name for name, end in seat.nics.items()}
    try:
        received = received_frames(_NET_DEV.read_text(encoding="ascii", errors="replace"))
    except OSError:
        return {}
    return {f"card {name}": received[tap] for tap, name in taps.items() if tap in received}


def received_frames(net_dev: str) -> Mapping[str, int]:
    """Read how many frames each interface received, which for a tap are those that its guest sent."""
    found = {}
    for line in net_dev.splitlines()[2:]:
        name, _, numbers = line.partition(":")
        fields = numbers.split()
        if len(fields) > 1 and fields[1].isdigit():
            found[name.strip()] = int(fields[1])
    return found
