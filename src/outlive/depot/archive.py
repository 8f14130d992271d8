"""A package as one file, `NAME-VERSION.tar.zst`, which is how packages are pushed and carried about.

It is a tar archive, so that anybody can look into it, compressed with zstd: `manifest.json` comes first, and then each
component once, as `components/DIGEST`, in the order of the digests. The reader takes this and nothing else, so that
whatever an archive says can neither name a file outside of the depot, nor be larger than its manifest says, nor
become a link, a device or anything but content that was checked against its hash.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from outlive.cluster.package import MOST_FILES, MOST_PACKAGE_BYTES, Manifest

from .shelf import Shelf

SUFFIX = ".tar.zst"


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may bring: files, and bytes of their content together."""

    files: int = MOST_FILES
    bytes: int = MOST_PACKAGE_BYTES


def archive_name(manifest: Manifest) -> str:
    """What a package's archive is called: NAME-VERSION.tar.zst."""
    return f"{manifest.name}-{manifest.version}{SUFFIX}"


def write_archive(shelf: Shelf, id: str, target: BinaryIO) -> None:
    """Write a package on the shelf as an archive; the same package gives the same bytes.

    Raises PackageMissing, ComponentMissing, ComponentDamaged, OSError of the target.
    """
    raise NotImplementedError


def build_archive(folder: Path, target: BinaryIO, *, within: Path | None = None) -> Manifest:
    """Make an archive of a folder with a package.toml, without a shelf. Raises as `Shelf.build`.

    within: where to put what is needed for a while; None: the system's folder for such.
    """
    raise NotImplementedError


def read_archive(source: BinaryIO, shelf: Shelf, limits: Limits = Limits()) -> Manifest:
    """Put an archive's package on the shelf, in one pass and with little memory.

    source: anything with `read(n)`; it need not seek.
    Raises PackageInvalid for any archive that is not whole and right, with nothing of it left; DepotFull, DepotFailed.
    """
    raise NotImplementedError
