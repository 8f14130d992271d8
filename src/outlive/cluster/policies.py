"""What operators want of the cluster as a whole: one record in the store under `policies`, with defaults without one.

Here are the values, what can be among them, and how a person names them (`admission.mode=refuse`). What follows from
each is decided where it matters: `courses` and `placing` (when), `placement` (where). No policy weakens what *never
two* rests on: its times are in `timing`, and `proof_of_end` can only ask for more.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from outlive.errors import UsageInvalid

from .fence import EndProof
from .workload import OnIsolation, Workload

MOST_RETRIES = 20
MOST_MINUTES = 7 * 24 * 60.0
MOST_TEXT = 500


class AdmissionMode(StrEnum):
    """What is done with a wish after which too few hosts could be lost. Never is a failover held up by it."""

    OFF = "off"
    WARN = "warn"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Admission:
    """can_lose_hosts: so many hosts, whichever, may die, and all that is to run still has a place."""

    can_lose_hosts: int = 1
    mode: AdmissionMode = AdmissionMode.WARN


@dataclass(frozen=True, slots=True)
class Freeze:
    """Nothing is done that nobody asked for.

    by: who asked for it, for people.  since_unix_ms: when, by that host's wall clock.  because: the event of the wish.
    """

    by: str
    reason: str = ""
    since_unix_ms: int = 0
    because: str = ""


@dataclass(frozen=True, slots=True)
class Policies:
    """What holds for all hosts and workloads.

    restarts_per_host: how many workloads may be on their way up on one host at once; the others wait their turn.
    moves_per_host:    how many workloads at once leave a host that is drained, or come back to one.
    retry_minutes:     how long a workload that failed once, twice, … in a row waits before it is tried again where it
                       failed; after the last, always the last.
    begin_within_s:    how long a host that lives may take to begin what it was told to.
    host_deaths, host_deaths_minutes: a workload during which so many hosts died in a row, each within so many minutes
                       of its start there, is suspected of killing them, and waits as one that failed; 0: never.
    proof_of_end:      what it takes to call a silent host ended.
    on_isolation:      what a host that finds itself cut off does with workloads whose files do not say.
    frozen:            None: the cluster acts by itself.
    """

    admission: Admission = Admission()
    restarts_per_host: int = 16
    moves_per_host: int = 4
    retry_minutes: tuple[float, ...] = (0.0, 2.0, 6.0, 14.0, 30.0)
    begin_within_s: float = 60.0
    host_deaths: int = 3
    host_deaths_minutes: float = 10.0
    proof_of_end: EndProof = EndProof.CLAIM
    on_isolation: OnIsolation = OnIsolation.STOP
    frozen: Freeze | None = None

    def retry_after_s(self, failures: int) -> float:
        """How long a workload waits after so many failures in a row (1: the first)."""
        return self.retry_minutes[min(max(failures, 1), len(self.retry_minutes)) - 1] * 60.0

    def stops_when_isolated(self, workload: Workload) -> bool:
        """Whether a host that is cut off stops it: as its file says, else as these say."""
        return (workload.on_isolation or self.on_isolation) is OnIsolation.STOP


def problem_with(policies: Policies) -> str:
    """What no policies can say; '' for nothing."""
    bounds = (
        ("admission.can_lose_hosts", policies.admission.can_lose_hosts, 0, 1000),
        ("restarts_per_host", policies.restarts_per_host, 1, 10_000),
        ("moves_per_host", policies.moves_per_host, 1, 1000),
        ("begin_within_s", policies.begin_within_s, 5, 3600),
        ("host_deaths", policies.host_deaths, 0, 1000),
        ("host_deaths_minutes", policies.host_deaths_minutes, 0, MOST_MINUTES),
    )
    for name, value, least, most in bounds:
        if not least <= value <= most:  # which no infinity and no NaN is
            return f"{name} is from {least:g} to {most:g}, not {_word(value)[:40]}"
    if not 1 <= len(policies.retry_minutes) <= MOST_RETRIES:
        return f"retry_minutes has 1 to {MOST_RETRIES} numbers, not {len(policies.retry_minutes)}"
    for minutes in policies.retry_minutes:
        if not 0 <= minutes <= MOST_MINUTES:
            return f"each of retry_minutes is from 0 to {MOST_MINUTES:g}, not {minutes:g}"
    frozen = policies.frozen
    if frozen is not None and (len(frozen.by) > MOST_TEXT or len(frozen.reason) > MOST_TEXT):
        return f"who froze it, and why, are told in at most {MOST_TEXT} characters each"
    return ""


KEYS: dict[str, str] = {
    "admission.can_lose_hosts": "how many hosts may be lost with everything still having a place",
    "admission.mode": "what is done when a wish would break that: off, warn or refuse",
    "restarts_per_host": "how many workloads may be starting on one host at once",
    "moves_per_host": "how many workloads at once are moved off a host that is drained",
    "retry_minutes": "waits after the first, second, … failure in a row, as in 0,2,6,14,30",
    "begin_within_s": "how long a living host may take to begin what it was told to",
    "host_deaths": "after how many deaths of its hosts a workload is suspected; 0: never",
    "host_deaths_minutes": "how long a workload has to run for its host's death to be no sign against it",
    "proof_of_end": "what it takes to call a silent host ended: claim, or fence, which wants a proof besides",
    "on_isolation": "what a host that is cut off does with workloads whose files do not say: stop or leave",
}
"""What `outlive policy set` knows, and what each is for."""


def told(policies: Policies) -> dict[str, str]:
    """Each key with its value as `changed` would read it."""
    retries = ",".join(f"{minutes:g}" for minutes in policies.retry_minutes)
    return {key: retries if key == "retry_minutes" else _word(_value(policies, key)) for key in KEYS}


def _value(policies: Policies, key: str) -> Any:
    value: Any = policies
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def changed(policies: Policies, settings: dict[str, str]) -> Policies:
    """The policies with each `key` set to what its text says. Raises UsageInvalid naming what is wrong."""
    for key, text in settings.items():
        if key not in KEYS:
            raise UsageInvalid(
                f"There is no policy {key[:80]!r}.",
                cause=f"the policies are {', '.join(KEYS)}",
                remedy="see `outlive policy show`; the cluster is frozen with `outlive freeze`",
            )
        policies = _with(policies, key, _read(key, text.strip()))
    if problem := problem_with(policies):
        raise UsageInvalid("The policies cannot be so.", cause=problem)
    return policies


def _read(key: str, text: str) -> Any:
    try:
        if key == "admission.mode":
            return AdmissionMode(text)
        if key == "proof_of_end":
            return EndProof(text)
        if key == "on_isolation":
            return OnIsolation(text)
        if key == "retry_minutes":
            return tuple(float(each) for each in text.split(",") if each.strip())
        return float(text) if key.endswith(("_s", "_minutes")) else int(text)
    except ValueError:
        raise UsageInvalid(f"{key} cannot be {text[:80]!r}.", cause=f"it says {KEYS[key]}") from None


def _with(policies: Policies, key: str, value: Any) -> Policies:
    room, _, name = key.partition(".")
    if name:
        return replace(policies, **{room: replace(getattr(policies, room), **{name: value})})
    return replace(policies, **{room: value})
