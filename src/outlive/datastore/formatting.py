"""Making a folder a datastore of a cluster. It blocks: for commands, not for the agent's loop."""

from pathlib import Path

from .errors import error_of
from .folder import Folder
from .opening import FolderTrouble


def format_datastore(name: str, path: Path, cluster: str) -> bool:
    """Mark the existing folder `path` as datastore `name` of `cluster`; False when it was already.

    Files that are there stay untouched. Raises DatastoreForeign when it belongs to another cluster, and the
    other errors of a datastore.
    """
    try:
        return Folder(str(path.resolve()), cluster, "format").format()
    except FolderTrouble as trouble:
        raise error_of(trouble.trouble, name, path, trouble.cause) from trouble
