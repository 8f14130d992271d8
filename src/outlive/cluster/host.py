"""A host: a machine with an agent, and the names that everything in a cluster goes by.

Here is what a host is and offers. Whether it is alive is judged in `detector`; what runs on it is decided
in `placement`.
"""

import re
from dataclasses import dataclass, field

from outlive.errors import UsageInvalid

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def checked_name(text: str, what: str) -> str:
    """Return `text` if it can name a host, site, workload or module; names become paths and keys.

    Raises UsageInvalid, saying what is wrong with it, otherwise.
    """
    if NAME.fullmatch(text):
        return text
    raise UsageInvalid(
        f"{text!r} cannot name a {what}.",
        cause="a name has 1 to 63 of a-z, 0-9 and '-', and neither begins nor ends with '-'",
        remedy=f"choose another name for the {what}",
    )


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a host offers or a workload needs."""

    cpus: float = 0.0
    memory_mib: int = 0

    def fits_in(self, other: "Capacity") -> bool:
        """Whether this need can be met by what `other` has free (a hair of tolerance for sums of floats)."""
        return self.cpus <= other.cpus + 1e-9 and self.memory_mib <= other.memory_mib

    def __add__(self, other: "Capacity") -> "Capacity":
        return Capacity(self.cpus + other.cpus, self.memory_mib + other.memory_mib)

    def __sub__(self, other: "Capacity") -> "Capacity":
        return Capacity(self.cpus - other.cpus, self.memory_mib - other.memory_mib)


@dataclass(frozen=True, slots=True)
class Host:
    """A member of the cluster as it registered itself.

    address, port: where its agent receives heartbeats (UDP). peer_port: its API for other agents (TLS).
    datastores: the names of the datastores it reaches. protocol: the version of the wire it speaks.
    """

    name: str
    site: str
    address: str
    port: int
    peer_port: int
    capacity: Capacity
    labels: dict[str, str] = field(default_factory=dict)
    datastores: tuple[str, ...] = ()
    protocol: int = 1
