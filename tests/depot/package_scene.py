"""Packages for tests: folders to build them of, shelves that have them, and what a depot's folder holds."""

import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from outlive.cluster.package import Component, Manifest
from outlive.depot.components import digest_of
from outlive.depot.install import Installations
from outlive.depot.installed import Installed
from outlive.depot.package import package_id
from outlive.depot.shelf import Shelf

FILES: Mapping[str, bytes] = {"bin/run": b"#!/bin/sh\nexec sleep 1000\n", "etc/web.conf": b"port = 80\n" * 1000}


def component(content: bytes) -> Component:
    """Content's name."""
    return Component(digest_of(content), len(content))


def source(
    folder: Path,
    name: str = "web",
    version: str = "1.0.0",
    *,
    files: Mapping[str, bytes] = FILES,
    needs: Mapping[str, str] | None = None,
    more: str = "",
) -> Path:
    """A folder that a package can be built of. Files below bin/ are executable. more: the end of package.toml."""
    here = folder / f"{name}-{version}"
    for path, content in files.items():
        file = here / "files" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o755 if path.startswith("bin/") else 0o644)
    here.mkdir(parents=True, exist_ok=True)
    depends = "".join(f'{other} = "{versions}"\n' for other, versions in (needs or {}).items())
    text = f'name = "{name}"\nversion = "{version}"\n[dependencies]\n{depends}{more}\n'
    (here / "package.toml").write_text(text)
    return here


def on_shelf(
    shelf: Shelf,
    name: str = "web",
    version: str = "1.0.0",
    *,
    files: Mapping[str, bytes] = FILES,
    needs: Mapping[str, str] | None = None,
    more: str = "",
) -> str:
    """Build such a package onto a shelf and return its id."""
    folder = shelf.folder.parent / "sources"
    return package_id(shelf.build(source(folder, name, version, files=files, needs=needs, more=more)))


def bring(manifest: Manifest, origin: Shelf, target: Shelf) -> None:
    """Copy a package from shelf to shelf, as a host fetches it from another."""
    with target.receive(manifest) as reception:
        for missing in reception.missing():
            with reception.receive(missing) as incoming:
                for piece in origin.components.read(missing, incoming.offset):
                    incoming.append(piece)
                incoming.finish()
        reception.finish()


def install_all(installations: Installations, ids: Iterable[str]) -> tuple[Installed, ...]:
    """Install packages, each with those before it that it needs."""
    done: list[Installed] = []
    for id in ids:
        done.append(installations.install_after(id, done))
    return tuple(done)


def files_in(folder: Path, *, but: Iterable[str] = ("collecting.lock",)) -> list[str]:
    """What lies in a folder, from it on, without folders and the names left out."""
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir() and path.name not in but
    )


@contextmanager
def memory_at(folder: Path, size_bytes: int) -> Iterator[Path]:
    """A file system in memory, of this size."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
