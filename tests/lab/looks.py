"""What every scene asks of its lab: what was recorded, and which processes the agents are."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from outlive.lab import hosts, ready
from outlive.lab.lab import Lab

EVENTS = 5000


def recorded(lab: Lab, workload: str = "", *, besides: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Everything that was recorded, in order; of one workload if it is named."""
    only = f"&workload={workload}" if workload else ""
    found: list[dict[str, Any]] = ready.any_client(lab, besides=besides).get(f"/v1/events?limit={EVENTS}{only}")[
        "events"
    ]
    return found


def agent_pids(lab: Lab, host: str) -> list[int]:
    """The agent's own process on a host: its keeper's child. None between two of them."""
    found = []
    for pid in hosts.pids(lab.plan, host, hosts.AGENT):
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"agent" in words and b"--keep" not in words:
                found.append(pid)
    return found


def agent_pid(lab: Lab, host: str) -> int:
    """The same, where one runs."""
    found = agent_pids(lab, host)
    assert found, "no agent runs there"
    return found[0]
