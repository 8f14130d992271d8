"""What one agent leaves in writing for the next about a workload that runs here: enough to take it over as it is.

It lies with what ends at a reboot, as the workload does. Whether it may go on is not written here.
"""

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from outlive.cluster.commands import Role


@dataclass(frozen=True, slots=True)
class Note:
    """data: its data folder in each datastore.  addresses: as they were taken.  pairing: a standby's.

    package: where its package is installed, '' without; variables: what its programs are told of that.
    """

    generation: int
    data: dict[str, str]
    addresses: tuple[str, ...]
    role: Role = Role.PRIMARY
    pairing: int = 0
    package: str = ""
    variables: dict[str, str] = field(default_factory=dict)


def write_note(folder: Path, note: Note) -> None:
    """Write the note whole or not at all. Raises OSError."""
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    beside = folder / "note.new"
    beside.write_bytes(msgspec.json.encode(note))
    beside.replace(folder / "note")


def read_note(folder: Path) -> Note | None:
    """The note; None when there is none that can be read."""
    try:
        return msgspec.json.decode((folder / "note").read_bytes(), type=Note)
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
        return None
