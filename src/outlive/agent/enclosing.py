"""Control groups for the fence programs of this agent: one for each run, beside those of workloads and guard.

Nothing that a program starts can leave its group, so what it leaves behind is found and ended. What an agent that died
was in the middle of goes on without its leader's word; the next agent ends it first.
"""

import contextlib
import itertools
import os
from dataclasses import dataclass
from pathlib import Path

import structlog

from outlive.runtime import cgroup

FOLDER = "fence"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Group:
    """The control group of one run."""

    folder: Path

    def kill(self) -> None:
        """Kill all in it."""
        cgroup.kill(self.folder)

    def populated(self) -> bool:
        """Whether anything lives in it."""
        return cgroup.populated(self.folder)

    def remove(self) -> None:
        """Remove it once it is empty."""
        with contextlib.suppress(OSError):
            self.folder.rmdir()


class Enclosures:
    """Makes groups below a folder that is this agent's alone; ends what an earlier agent left in them."""

    def __init__(self, workloads: Path) -> None:
        self._root = workloads.parent / FOLDER
        self._numbers = itertools.count()
        with contextlib.suppress(OSError):
            for left in [each for each in self._root.iterdir() if each.is_dir()]:
                Group(left).kill()
                Group(left).remove()

    def __call__(self) -> Group | None:
        """A group for one run; None where none can be made, and a session has to do."""
        group = Group(self._root / f"{os.getpid()}-{next(self._numbers)}")
        try:
            group.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            log.warning("fence.not_enclosed", reason=error.strerror)
            return None
        return group
