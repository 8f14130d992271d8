"""Where one machine stands on this host: in which role, in which generation of its workload and which pairing.

All rooms of a machine share the one of theirs, and everything that is told of it bears what stands here then. Moved on
by the node's orders, and by what its manager tells where the agent came late; by nothing else.
"""

from dataclasses import dataclass

from outlive.cluster.commands import Role


@dataclass(slots=True)
class Standing:
    """address: this host's, on which a standby listens."""

    workload: str
    generation: int
    pairing: int
    role: Role
    address: str
