"""Checks of what fences: this host's watchdog, and the ways it has to prove that others are off.

Nothing is armed and nobody is switched off: a watchdog is looked at from outside, since opening it starts it, and
devices are only asked for the state of hosts.
"""

import asyncio
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from outlive.cluster.watchdog import longest_timeout_s
from outlive.config.agent_file import AgentConfig
from outlive.config.fencing import Method
from outlive.fence import stonith
from outlive.fence.guard import Guard, GuardLost, Hello, Listener, Watchdog
from outlive.fence.stonith import Power

from . import presence
from .finding import Finding, failed, ok, warning

SYSFS = Path("/sys/class/watchdog")
ASKED_S = 15.0
MOST_HOSTS = 8


async def watchdog(config: AgentConfig) -> Finding:
    """The hardware watchdog: whether it is there, would be let go of, and what it grants the guard."""
    device, wanted_s = config.fencing.watchdog, config.fencing.watchdog_timeout_s
    if device is None:
        return ok("watchdog", "none is configured: should the guard die with its agent, nothing ends workloads here")
    hello = await _guard(config)
    longest_s = longest_timeout_s(config.timing)
    if hello is not None and hello.feeds(Watchdog(device, wanted_s, longest_s)):
        if hello.waits:
            fix = f"if it stays so, see that {device} is there and held by nobody else: until then nothing starts here"
            return warning("watchdog", "the guard has not taken it up since the guard before it died", fix)
        return ok("watchdog", f"the guard feeds it: {hello.watchdog}")
    mode = (await asyncio.to_thread(device.stat)).st_mode
    if not stat.S_ISCHR(mode):
        return failed("watchdog", f"{device} is no device", "name a watchdog device: /dev/watchdog")
    if hello is not None and hello.watchdog != "none" and not hello.device:
        fix = "nothing needs to be done: it is replaced when the agent is started while nothing is protected here"
        return warning("watchdog", f"a guard of an earlier version feeds one ({hello.watchdog}), and not which", fix)
    if hello is not None:
        fix = "stop this host's workloads with `outlive down`, then start the agent again"
        other = f"with {hello.device} for {hello.asked_s} s" if hello.watchdog != "none" else "without it"
        return failed("watchdog", f"the guard that runs was started {other}", fix)
    told = await asyncio.to_thread(_told, device)
    if told.get("nowayout") == "1":
        fix = "load its driver with nowayout=0, or the host is reset each time that its guard ends in order"
        return warning("watchdog", f"{device} cannot be disarmed once it was opened", fix)
    name = told.get("identity", "a device that says no more")
    least_s = told.get("min_timeout", "0")
    if least_s.isdigit() and int(least_s) > longest_s:
        fix = "let claims last longer (claim_ttl_s), or use another device"
        return failed("watchdog", f"{name} waits for {least_s} s at least, and {longest_s} s are safe", fix)
    return ok("watchdog", f"{name} is there; the guard asks it for {wanted_s} s")


def _told(device: Path) -> dict[str, str]:
    """What the kernel tells of it without its being opened; /dev/watchdog is the first one's other name."""
    folder = SYSFS / (device.name if device.name != "watchdog" else "watchdog0")
    told: dict[str, str] = {}
    for name in ("identity", "nowayout", "min_timeout"):
        try:
            told[name] = (folder / name).read_text().strip()
        except OSError:
            continue
    return told


async def _guard(config: AgentConfig) -> Hello | None:
    """What the guard that runs says of itself; None when none runs. None is started."""
    path = config.run_folder / presence.GUARD_SOCKET
    if presence.listener(path) is None:
        return None
    guard = Guard(path, Path(os.devnull), Listener(_ignore, _ignore, lambda: None))
    try:
        return await guard.start()
    except GuardLost:
        return None
    finally:
        guard.close()


async def method(config: AgentConfig, method: Method, addresses: Mapping[str, str]) -> Finding:
    """A fence method: whether its program is there, and whether a device answers for the hosts that it knows.

    addresses: of the hosts that the store knows; what needs one is asked for these alone.
    """
    id = f"fence.{method.name}"
    if method.run_locks:
        if not config.datastores:
            return failed(id, "it takes run locks, and this host has no datastore", "name one in [[datastore]]")
        return ok(id, f"takes run locks on {', '.join(each.name for each in config.datastores)}")
    program = stonith.program(method)
    known = {**addresses, config.host: config.address}
    hosts = sorted(method.hosts) or sorted(known)
    unknown = [host for host in hosts if host not in known and method.uses_address(host)]
    asked = [host for host in hosts if host not in unknown][:MOST_HOSTS]
    async with asyncio.timeout(ASKED_S):
        answers = await asyncio.gather(*(stonith.status(method, host, known.get(host, "")) for host in asked))
    for host, said in zip(asked, answers, strict=True):
        if said.power is Power.UNKNOWN:
            found = f"{program} does not tell whether {host} is on: {said.text or 'it says nothing'}"
            return failed(id, found, "try it by hand with these options; until it answers it proves nothing")
    if unknown:
        found = f"{', '.join(unknown)} cannot be asked for: the address is not known"
        return warning(id, found, "start the agents there once; or name the hosts as the cluster does")
    told = ", ".join(f"{host} is {said.power.value}" for host, said in zip(asked, answers, strict=True))
    return ok(id, f"{told}, says {program}")


def _ignore(_: object) -> None:
    return
