"""An agent file's [fencing] as values: this host's watchdog, and the ways it has to prove that others are off.

What the keys are is in `fence_shape`; what has to hold between them is noted here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outlive.cluster.fence import FenceMethod
from outlive.cluster.timing import Timing
from outlive.cluster.watchdog import longest_timeout_s

from . import fence_shape as shape
from .placeholders import used
from .problems import Problems

SECRET = re.compile(r".*pass(wd|word)")
SECRET_FILE = re.compile(r"(.*pass(wd|word))_file")
OURS = ("action", "nodename")
ALWAYS = ("host", "address")


@dataclass(frozen=True, slots=True)
class Method:
    """One way to fence. Of agent, command and run_locks it has just one.

    hosts: options for single hosts; empty: it can fence any.  limit_s: for a whole try.
    """

    name: str
    agent: str = ""
    options: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    status: tuple[str, ...] = ()
    run_locks: bool = False
    hosts: dict[str, dict[str, str]] = field(default_factory=dict)
    limit_s: float = shape.LIMIT_S
    tries: int = shape.TRIES

    def told(self) -> FenceMethod:
        """What decisions need to know of it."""
        return FenceMethod(self.name, frozenset(self.hosts) if self.hosts else None, self.run_locks, self.tries)

    def uses_address(self, host: str) -> bool:
        """Whether the host's address is among what its programs are told."""
        texts = (*self.command, *self.status, *self.options.values(), *self.hosts.get(host, {}).values())
        return any("address" in used(text) for text in texts)

    @property
    def program(self) -> str:
        """What it runs; '' for run locks."""
        return self.agent or (self.command[0] if self.command else "")


@dataclass(frozen=True, slots=True)
class Fencing:
    """watchdog: None: this host has none. methods: in the order in which they are tried."""

    watchdog: Path | None = None
    watchdog_timeout_s: int = shape.WATCHDOG_TIMEOUT_S
    methods: tuple[Method, ...] = ()


def fencing_of(values: Mapping[str, Any]) -> Fencing:
    """The values of a table that was read without a mistake."""
    methods = tuple(
        Method(
            name=one["name"],
            agent=one.get("agent", ""),
            options=dict(one.get("options", {})),
            command=tuple(one.get("command", ())),
            status=tuple(one.get("status", ())),
            run_locks=one.get("run_locks", False),
            hosts={host: dict(options) for host, options in one.get("host", {}).items()},
            limit_s=one.get("limit_s", shape.LIMIT_S),
            tries=one.get("tries", shape.TRIES),
        )
        for one in values.get("method", ())
    )
    watchdog = Path(values["watchdog"]) if "watchdog" in values else None
    return Fencing(watchdog, values.get("watchdog_timeout_s", shape.WATCHDOG_TIMEOUT_S), methods)


def fencing_document(fencing: Fencing) -> dict[str, Any]:
    """The table that such values are read from, without what is as it would be anyway."""
    document: dict[str, Any] = {}
    if fencing.watchdog is not None:
        document["watchdog"] = str(fencing.watchdog)
    if fencing.watchdog_timeout_s != shape.WATCHDOG_TIMEOUT_S:
        document["watchdog_timeout_s"] = fencing.watchdog_timeout_s
    if fencing.methods:
        document["method"] = [_method_document(method) for method in fencing.methods]
    return document


def _method_document(method: Method) -> dict[str, Any]:
    usual = Method(method.name)
    document: dict[str, Any] = {"name": method.name}
    for key in ("agent", "command", "status", "run_locks", "limit_s", "tries", "options"):
        value = getattr(method, key)
        if value != getattr(usual, key):
            document[key] = list(value) if isinstance(value, tuple) else value
    if method.hosts:
        document["host"] = method.hosts
    return document


def check_fencing(values: Mapping[str, Any], timing: Timing, problems: Problems) -> None:
    """Note what does not hold between keys that are each right by themselves."""
    timeout_s = values.get("watchdog_timeout_s", shape.WATCHDOG_TIMEOUT_S)
    longest_s = longest_timeout_s(timing)
    if "watchdog" in values and timeout_s > longest_s:
        fix = f"Write at most {longest_s}, or let claims last longer: claim_ttl_s in [timing]."
        if longest_s < 1:
            fix = "Let claims last longer: claim_ttl_s in [timing]."
        problems.add(("fencing", "watchdog_timeout_s"), "is longer than is safe with this cluster's claims", fix)
    seen: set[str] = set()
    for index, method in enumerate(values.get("method", ())):
        at = ("fencing", "method", index)
        if not isinstance(method, dict):
            continue
        name = method.get("name")
        if name in seen:
            problems.add((*at, "name"), "is the same as an earlier method's", "Give it its own.")
        if name is not None:
            seen.add(name)
        _check_kind(method, at, problems)
        _check_options(method, at, problems)


def _check_kind(method: Mapping[str, Any], at: tuple[str | int, ...], problems: Problems) -> None:
    kinds = [key for key in ("agent", "command", "run_locks") if method.get(key)]
    if len(kinds) != 1 and problems.whole:
        said = "says none of" if not kinds else "says more than one of"
        problems.add(at, f"{said} agent, command and run_locks", "Write just one of them.")
    if "command" in kinds and "status" not in method and problems.whole:
        fix = 'Write status = ["…"]: a program that prints "off" and ends with 2 if it is off. Else nothing is proven.'
        problems.add((*at, "status"), "is missing", fix)
    if "command" not in kinds and "status" in method:
        problems.add((*at, "status"), "is for methods with a command", "Remove it.")
    known = set(ALWAYS).union(*(options for options in method.get("host", {}).values() if isinstance(options, dict)))
    for key in ("command", "status"):
        for place, word in enumerate(method.get(key, ())):
            unknown = [name for name in used(word) if name not in known] if isinstance(word, str) else []
            if unknown:
                told = " and ".join(f"{{{name}}}" for name in sorted(known))
                problems.add((*at, key, place), f"has {{{unknown[0]}}}, which is not known", f"Known are {told}.")


def _check_options(method: Mapping[str, Any], at: tuple[str | int, ...], problems: Problems) -> None:
    tables = [((*at, "options"), method.get("options", {}))]
    hosts = method.get("host", {})
    if isinstance(hosts, dict):
        tables += [((*at, "host", host), options) for host, options in hosts.items()]
    for where, options in tables:
        for key in options if isinstance(options, dict) else ():
            if key in OURS:
                problems.add((*where, key), "is what Outlive says to the agent itself", "Remove it.")
            elif SECRET.fullmatch(key) and method.get("agent"):
                fix = f"Write it into a file that root alone can read, and here {key}_file = PATH."
                problems.add((*where, key), "does not belong in this file, which others may read", fix)
    if method.get("options") and not method.get("agent"):
        problems.add((*at, "options"), "is for methods with an agent", "Remove it, or use [fencing.method.host.HOST].")
