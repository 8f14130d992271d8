"""The journal: what an agent must know to adopt what still runs after its own death.

One small file, replaced as a whole: written beside, synced, renamed, the folder synced. It opens with a line
that names its format, its length and its digest, so half a file or a bad disk shows. A journal that cannot be
trusted is refused with a sentence (`JournalBad`) and put aside; the agent then clears every leftover away.
"""

import os
from hashlib import blake2b
from pathlib import Path

import msgspec

from outlive.cluster.commands import Journal
from outlive.errors import OutliveError

NAME = "journal"
MOST_BYTES = 16 * 1024 * 1024
_FORMAT = b"outlive-journal"
_VERSION = b"1"
_decoder = msgspec.json.Decoder(Journal)


class JournalBad(OutliveError):
    """The journal is not what an agent wrote; nothing in it is used."""

    id = "agent.journal-bad"

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(
            f"The journal {path} cannot be used.",
            cause=problem,
            remedy="nothing needs doing: the agent clears its leftovers and starts afresh; "
            f"the file is kept as {path.name}.bad",
        )


def encoded(journal: Journal) -> bytes:
    """The file's bytes: a line `outlive-journal 1 LENGTH DIGEST`, then the journal as JSON."""
    body = msgspec.json.encode(journal)
    return b"%s %s %d %s\n" % (_FORMAT, _VERSION, len(body), _digest(body)) + body


def decoded(path: Path, content: bytes) -> Journal:
    """Read back what `encoded` made. Raises JournalBad, and nothing else, for any other bytes."""
    head, newline, body = content.partition(b"\n")
    parts = head.split(b" ")
    if not newline or len(parts) != 4 or parts[0] != _FORMAT:
        raise JournalBad(path, "it does not begin as a journal does")
    if parts[1] != _VERSION:
        raise JournalBad(path, f"its format is {parts[1][:20]!r}, and this agent knows {_VERSION!r}")
    if parts[2] != b"%d" % len(body):
        raise JournalBad(path, f"{len(body)} bytes follow where {parts[2][:20]!r} were written")
    if parts[3] != _digest(body):
        raise JournalBad(path, "its digest does not match its bytes")
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise JournalBad(path, str(error)) from error


def load(folder: Path) -> Journal | None:
    """Return the journal kept in `folder`, or None when there is none.

    Raises JournalBad after putting the file aside under the name `journal.bad`.
    """
    path = folder / NAME
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise JournalBad(path, f"it cannot be read: {error.strerror}") from error
    try:
        if len(content) > MOST_BYTES:
            raise JournalBad(path, f"it is larger than {MOST_BYTES} bytes")
        return decoded(path, content)
    except JournalBad:
        path.replace(path.with_name(NAME + ".bad"))
        raise


def save(folder: Path, journal: Journal) -> None:
    """Make `journal` the one that `load` returns, whatever happens from now on. Blocks; raises OSError."""
    beside = folder / (NAME + ".new")
    # For root alone: workloads' environments stand in it.
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(encoded(journal))
        file.flush()
        os.fsync(file.fileno())
    beside.replace(folder / NAME)
    listing = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(listing)
    finally:
        os.close(listing)


def _digest(body: bytes) -> bytes:
    return blake2b(body, digest_size=16).hexdigest().encode()
