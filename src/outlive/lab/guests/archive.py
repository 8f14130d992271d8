"""An archive for the kernel's initial file system: cpio of the kind `newc`, the same bytes for the same entries.

No clock, owner or inode of this machine gets in, so that a hash of it names its content.
"""

from collections.abc import Iterable
from dataclasses import dataclass

_MAGIC = "070701"
_FILE, _FOLDER, _LINK, _CHARACTER_DEVICE = 0o100000, 0o040000, 0o120000, 0o020000


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in the file system. mode: kind and permissions; device: major and minor number."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def file(name: str, data: bytes, permissions: int = 0o644) -> Entry:
    return Entry(name, _FILE | permissions, data)


def folder(name: str) -> Entry:
    return Entry(name, _FOLDER | 0o755)


def link(name: str, target: str) -> Entry:
    return Entry(name, _LINK | 0o777, target.encode())


def device(name: str, major: int, minor: int) -> Entry:
    """A character device."""
    return Entry(name, _CHARACTER_DEVICE | 0o600, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """Return the archive of these entries, folders before what is in them."""
    made = bytearray()
    for number, entry in enumerate((*entries, Entry("TRAILER!!!", 0)), start=1):
        name = entry.name.encode() + b"\0"
        fields = (number, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
        made += (_MAGIC + "".join(f"{value:08x}" for value in fields)).encode() + name
        made += bytes(-len(made) % 4)
        made += entry.data
        made += bytes(-len(made) % 4)
    return bytes(made)
