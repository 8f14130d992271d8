"""Verbs for fence devices, and for people who say that a host is off."""

from .operators import Operators
from .parts import Parts
from .verb import Undo, Verb


def _ill(ills: dict[tuple[str, str], int], method: str, host: str) -> Undo:
    ills[method, host] = ills.get((method, host), 0) + 1

    def heal() -> None:
        ills[method, host] -= 1

    return heal


def _fails(parts: Parts, _: Operators, method: str, host: str = "") -> Undo:
    """The device refuses (that host)."""
    return _ill(parts.fencing.fails, method, host)


def _slow(parts: Parts, _: Operators, method: str, host: str = "") -> Undo:
    """The device acts only after whoever asked it has given up."""
    return _ill(parts.fencing.slow, method, host)


def _lies(parts: Parts, _: Operators, method: str, host: str = "") -> Undo:
    """The device says that the host is off, and does nothing."""
    return _ill(parts.fencing.lies, method, host)


def _confirm_dead(parts: Parts, operators: Operators, host: str) -> Undo:
    """Somebody says that the host is off."""
    operators.confirm_dead(host)
    return None


VERBS: dict[str, Verb] = {
    "fence-fails": Verb(_fails, 1, 2, hosts=(1,)),
    "fence-slow": Verb(_slow, 1, 2, hosts=(1,)),
    "fence-lies": Verb(_lies, 1, 2, hosts=(1,)),
    "confirm-dead": Verb(_confirm_dead, 1, 1, hosts=(0,)),
}
