"""Which machine speaks under a host's name, and since which start of its kernel.

A boot id is 32 hexadecimal characters: 16 that name the machine, 16 that name the start. So whoever hears a host knows
whether it is the machine that held a claim, begun anew: then nothing is left of what it did before. Another machine
under the same name proves nothing about the first, which may still run somewhere (DESIGN: never two).

The thirteenth says that a machine is named. It is the version of a UUID, and 8, "custom", in RFC 9562; where it is
another, as the 4 in the kernel's own random id of a start, which hosts of an older version give, no machine is named.
"""

from hashlib import blake2b

_HALF = 16
_UNKNOWN = "0" * _HALF
_VERSION_AT, _NAMED = 12, "8"


def boot_id(machine: str, start: str) -> str:
    """The boot id of a machine.

    machine: what only this machine has, in any form; '': not known.  start: the kernel's id of its present start.
    Neither can be learned from it: machine-id(5) asks for that.
    """
    named = _name(machine, b"machine")
    named = named[:_VERSION_AT] + _NAMED + named[_VERSION_AT + 1 :]
    return (named if machine else _UNKNOWN) + _name(start, b"start")


def _name(text: str, use: bytes) -> str:
    return blake2b(text.encode(), digest_size=_HALF // 2, person=b"outlive." + use[:8]).hexdigest()


def names_machine(boot_id: str) -> bool:
    """Whether it says which machine it is of."""
    return len(boot_id) == 2 * _HALF and boot_id[_VERSION_AT] == _NAMED


def is_another_machine(before: str, now: str) -> bool:
    """Whether the two boot ids are certainly of different machines; one that names none is never certain."""
    return names_machine(before) and names_machine(now) and before[:_HALF] != now[:_HALF]


def is_same_machine(before: str, now: str) -> bool:
    """Whether the two boot ids are certainly of one machine; one that names none is never certain."""
    return names_machine(before) and names_machine(now) and before[:_HALF] == now[:_HALF]


def is_another_start(before: str, now: str) -> bool:
    """Whether both are certainly of the same machine, at different starts."""
    return is_same_machine(before, now) and before != now
