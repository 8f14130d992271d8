"""A campaign that is run in pieces: a file with a line for each piece that was run to its end.

One who runs a hundred thousand seeds stops and goes on. Each line names the decisions that it ran, by a digest of their
source, so that a summary can say whether all of it was shown of the same ones. Lines are added and synced, never
changed; a last line that was cut off is not counted.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from outlive import cluster
from outlive.errors import UsageInvalid


@dataclass(frozen=True, slots=True)
class Piece:
    """seeds: so many from first_seed on, all run. broken: those in which a rule was broken. decisions: see above."""

    first_seed: int
    seeds: int
    hosts: int
    broken: tuple[int, ...]
    simulated_h: float
    wall_s: float
    decisions: str

    def __post_init__(self) -> None:
        """Raise ValueError for a piece that nobody can have run."""
        if self.first_seed < 0 or self.seeds < 1 or self.hosts < 1 or self.simulated_h < 0 or self.wall_s < 0:
            raise ValueError("its numbers cannot be")


class BadLog(UsageInvalid):
    """A file that is no campaign's log; the sentence names the line."""

    id = "campaign.bad-log"


def read(path: Path) -> list[Piece]:
    """All pieces of a log, none where there is no file. Raises BadLog."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise BadLog(f"The campaign's log {path} cannot be read.", cause=str(error)) from error
    *lines, cut_off = text.split("\n")
    del cut_off
    return [_piece(path, number, line) for number, line in enumerate(lines, 1)]


def _piece(path: Path, number: int, line: str) -> Piece:
    try:
        return msgspec.json.decode(line, type=Piece)
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadLog(
            f"Line {number} of {path} is no piece of a campaign.",
            cause=str(error),
            remedy="name another file, or remove that line and its seeds are run again",
        ) from error


def add(path: Path, piece: Piece) -> None:
    """Put down a piece that was run to its end; durable on return. Raises OSError."""
    with path.open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":
                _drop_the_cut_off(file.fileno(), path)
        file.write(msgspec.json.encode(piece) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _drop_the_cut_off(file: int, path: Path) -> None:
    os.ftruncate(file, path.read_bytes().rfind(b"\n") + 1)


def still_to_run(pieces: list[Piece], first: int, count: int, hosts: int, most: int) -> list[tuple[int, int]]:
    """The stretches (first seed, how many), of at most so many each, that no piece with so many hosts has run."""
    run = sorted((each.first_seed, each.first_seed + each.seeds) for each in pieces if each.hosts == hosts)
    stretches: list[tuple[int, int]] = []
    at, end = first, first + count
    for begin, after in [*run, (end, end)]:
        while at < min(begin, end):
            stretches.append((at, min(most, begin - at, end - at)))
            at += stretches[-1][1]
        at = max(at, after)
    return stretches


def decisions() -> str:
    """A digest of the source of the decisions, as far as they are pure: `outlive.cluster`."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(Path(str(cluster.__file__)).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
