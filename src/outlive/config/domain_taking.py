"""What is being taken over of a libvirt domain, and what is left behind."""

from dataclasses import dataclass, field
from typing import Any

from outlive.cluster.workload import Protection

from .domain_xml import Element
from .problems import printable


@dataclass(frozen=True, slots=True)
class Left:
    """A part that was not taken over, or not as it was: where it stands, and why."""

    part: str
    line: int
    why: str


@dataclass(slots=True)
class Taking:
    """What was taken so far, and what was left. protection: what the machine is to have."""

    protection: Protection
    on: str | None
    vm: dict[str, Any] = field(default_factory=dict)
    left: list[Left] = field(default_factory=list)

    @property
    def hot(self) -> bool:
        return self.protection is Protection.HOT

    def leave(self, part: str, element: Element, why: str) -> None:
        """Note a part that is left behind."""
        self.left.append(Left(printable(part), element.line, printable(why)))
