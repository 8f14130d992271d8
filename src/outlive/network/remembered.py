"""The list of addresses that we added, for kernels that cannot remember it themselves (before 5.18).

One address a line, in a file that should be gone after a restart of the machine, as the addresses are: in /run.
The list is never the reason to touch anything by itself; a line that cannot be read names nothing.
"""

import contextlib
import os
from pathlib import Path

import structlog

from outlive.errors import OutliveError
from outlive.network.address import VirtualAddress, complete, parse

_MOST_BYTES = 1024 * 1024

log = structlog.get_logger()


class RememberedAddresses:
    """A set of addresses that other processes, after us, can read. path: None keeps it in memory only."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._addresses: set[VirtualAddress] | None = None

    def __contains__(self, address: VirtualAddress) -> bool:
        return address in self._load()

    def add(self, address: VirtualAddress) -> None:
        """Put an address on the list."""
        if address not in self._load():
            self._save(self._load() | {address})

    def forget(self, address: VirtualAddress) -> None:
        """Take an address off the list."""
        if address in self._load():
            self._save(self._load() - {address})

    def _load(self) -> set[VirtualAddress]:
        if self._addresses is None:
            self._addresses = set()
            if self._path is not None:
                with contextlib.suppress(OSError), self._path.open("rb") as file:
                    lines = file.read(_MOST_BYTES).decode("ascii", "replace").splitlines()
                    self._addresses = {address for line in lines if (address := _read(line)) is not None}
        return self._addresses

    def _save(self, addresses: set[VirtualAddress]) -> None:
        self._addresses = addresses
        if self._path is None:
            return
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text("".join(f"{line}\n" for line in sorted(map(str, addresses))), encoding="ascii")
            beside.replace(self._path)
        except OSError as error:
            # The kernel's lifetimes still end what a process after us would not recognise.
            log.warning("virtual_ip.list_not_written", path=str(self._path), because=str(error))


def _read(line: str) -> VirtualAddress | None:
    try:
        return complete(parse(line), ())
    except OutliveError:
        return None
