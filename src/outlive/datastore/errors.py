"""What can be wrong with a datastore, each as an error that says what to do.

The worker tells a `Trouble` and a cause (`opening`); here they become errors, raised by `datastore` and
`formatting`. An error with `of_all` concerns the whole datastore, the others one thing that was tried in it.
"""

from pathlib import Path
from typing import ClassVar

from outlive.errors import Failed

from .opening import Trouble


class DatastoreError(Failed):
    """Something failed that none of the other errors names, such as a failing disk."""

    id = "datastore.failed"
    says: ClassVar[str] = "Datastore {name} ({path}) failed."
    do: ClassVar[str] = "look at the kernel's log (dmesg) of this host and of the storage"
    of_all: ClassVar[bool] = True

    def __init__(self, name: str, path: Path, cause: str = "") -> None:
        super().__init__(self.says.format(name=name, path=path), cause=cause, remedy=self.do)


class DatastoreTimeout(DatastoreError):
    """It did not answer in time. What was asked for may still happen."""

    id = "datastore.timeout"
    says = "Datastore {name} ({path}) does not answer."
    do = "check the storage and the network to it; the agent goes on trying"


class DatastoreVanished(DatastoreError):
    """The folder is not there, or is not a datastore: most likely nothing is mounted."""

    id = "datastore.vanished"
    says = "Datastore {name} is not at {path}."
    do = "mount it; a folder that is new must be made a datastore of this cluster first"


class DatastoreForeign(DatastoreError):
    """It belongs to another cluster, so this one does not touch it."""

    id = "datastore.foreign"
    says = "The folder {path} is a datastore of another cluster."
    do = "mount the right storage there, or name another folder for datastore {name}"


class DatastoreDamaged(DatastoreError):
    """Its marker cannot be read, so nobody knows whose it is."""

    id = "datastore.damaged"
    says = "The marker of datastore {name} in {path} cannot be read."
    do = "if the folder is surely this cluster's, remove outlive-datastore.json and format it again"


class DatastoreReadOnly(DatastoreError):
    id = "datastore.read-only"
    says = "Datastore {name} ({path}) is read-only."
    do = "mount it read-write; a file system turns read-only by itself after errors: see the kernel's log"
    of_all = False


class DatastoreDenied(DatastoreError):
    id = "datastore.denied"
    says = "This host may not use datastore {name} ({path})."
    do = "let the agent's user write there (on NFS: no_root_squash, or a folder owned by the squashed user)"
    of_all = False


class DatastoreFull(DatastoreError):
    """No room. Slots that exist can mostly still be written, since they are written in place."""

    id = "datastore.full"
    says = "Datastore {name} ({path}) is full."
    do = "free space or inodes there"
    of_all = False


class RecordRefused(DatastoreError):
    """A file in the datastore is not what it should be."""

    id = "datastore.record-refused"
    says = "A file in datastore {name} ({path}) is not believed."
    do = "it is written anew when it next changes; if it stays so, another program writes in this folder"
    of_all = False


_ERRORS = {
    Trouble.FULL: DatastoreFull,
    Trouble.READ_ONLY: DatastoreReadOnly,
    Trouble.VANISHED: DatastoreVanished,
    Trouble.FOREIGN: DatastoreForeign,
    Trouble.DAMAGED: DatastoreDamaged,
    Trouble.DENIED: DatastoreDenied,
    Trouble.FAILED: DatastoreError,
}


def error_of(trouble: str, name: str, path: Path, cause: str) -> DatastoreError:
    """The error of a trouble that a worker told."""
    kind = _ERRORS.get(Trouble(trouble), DatastoreError) if trouble in set(Trouble) else DatastoreError
    return kind(name, path, cause)
