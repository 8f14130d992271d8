"""Manifests as bytes and as ids, and packages made of a folder: `package.toml` beside a folder of files.

There is one way of writing a manifest, so its hash can be its name; what is written otherwise is refused. The nouns
are in `outlive.cluster.package`, the keys of `package.toml` in `outlive.config.package_shape`.
"""

from pathlib import Path

from outlive.cluster.package import Manifest

from .components import Components, Hold

PACKAGE_FILE = "package.toml"
MOST_MANIFEST_BYTES = 4 << 20


def manifest_bytes(manifest: Manifest) -> bytes:
    """A manifest in the one way of writing it: JSON, fields in their order, files by path."""
    raise NotImplementedError


def package_id(manifest: Manifest) -> str:
    """The package's id: the BLAKE3 of `manifest_bytes`, 64 hexadecimal digits."""
    raise NotImplementedError


def read_manifest(raw: bytes, *, id: str | None = None) -> Manifest:
    """Read a manifest from outside. id: what it must be. Raises PackageInvalid, and nothing else for any bytes."""
    raise NotImplementedError


def build(folder: Path, components: Components, hold: Hold) -> Manifest:
    """Make a package of a folder with a package.toml; its files are then in `components`, held.

    Raises PackageFileError (from `outlive.config.package_file`) with every mistake in package.toml, PackageInvalid for
    files that cannot be in a package (links, pipes, setuid, names with control characters), DepotFull, DepotFailed.
    """
    raise NotImplementedError
