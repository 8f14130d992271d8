"""All targets by name. docs/fuzzing.md tells which parser each of them asks; a test compares the two."""

from . import of_files, of_machines, of_peers, of_store, of_wire
from .target import Target

TARGETS: dict[str, Target] = {
    target.name: target for room in (of_wire, of_files, of_store, of_machines, of_peers) for target in room.TARGETS
}
