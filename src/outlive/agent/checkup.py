"""The check-up of a host, before and after it is set up: every check in order, each with its finding.

What is checked of the machine is in `checkup_machine` and `checkup_vms`, of the host's own files in
`checkup_cluster`, of what fences in `checkup_fencing`. A check never changes anything that outlasts it, and none can
keep the others from being made.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

from outlive.config.agent_file import AGENT_FILE, AgentConfig, AgentFileError, ClusterMembership, read_agent

from . import checkup_fencing as fencing
from . import checkup_machine as machine
from . import checkup_vms as vms
from .checkup_cluster import Member
from .finding import Finding, failed, ok, tried

NOT_SET_UP = AgentConfig("host", "127.0.0.1", ClusterMembership("0" * 16))
"""What a host that is yet to be set up would have for ports."""


VMS: tuple[tuple[str, Any], ...] = (
    ("vm.emulator", vms.emulator),
    ("vm.tools", vms.tools),
    ("vm.user", vms.user),
    ("vm.tracking", vms.tracking),
)


async def examine(config_file: Path | None = None) -> AsyncIterator[Finding]:
    """Make every check, telling each finding as it is made.

    config_file: the agent's file; None: where an installed host has it, if it is there.
    """
    wall_ahead_s = machine.wall_ahead_s()
    for id, check in machine.MACHINE:
        for found in await tried(id, cast(Any, check)):
            yield found
    for id, check in VMS:
        for found in await tried(id, cast(Any, check)):
            yield found
    config, about = read_config(config_file)
    yield about
    if config is not None:
        async for found in _member(Member(config)):
            yield found
    elif about.result == "ok":
        for found in await tried("port", Member(NOT_SET_UP).ports):
            yield found
    for found in await tried("clock-jumps", lambda: machine.clock_jumps(wall_ahead_s)):
        yield found


def read_config(path: Path | None) -> tuple[AgentConfig | None, Finding]:
    """Read the agent's file; None and a finding that says why there is nothing more to check."""
    file = path or AGENT_FILE
    if path is None and not file.exists():
        return None, ok("config", f"there is no {file} yet; `outlive up` writes it")
    try:
        return read_agent(file), ok("config", f"{file} is valid")
    except AgentFileError as error:
        return None, failed("config", str(error), error.remedy)


async def _member(member: Member) -> AsyncIterator[Finding]:
    checks: list[tuple[str, Any]] = [
        ("cluster-key", member.key),
        ("certificates", member.certificates),
        ("cgroup-root", member.cgroup_root),
        ("room", member.room),
        ("store", member.store),
        ("port", member.ports),
        ("vm.memory", lambda: vms.memory(member.config)),
        ("watchdog", lambda: fencing.watchdog(member.config)),
    ]
    for method in member.config.fencing.methods:
        checks.append(
            (f"fence.{method.name}", lambda method=method: fencing.method(member.config, method, member.addresses))
        )
    for folder in member.config.datastores:
        checks.append((f"datastore.{folder.name}", lambda folder=folder: member.datastore(folder)))
    for id, check in checks:
        for found in await tried(id, check):
            yield found
