"""A program that brings, installs, collects and takes away packages at random until it is killed; others do the same.

Run as `python restless.py FOLDER SEED`. It ends with an error as soon as it sees something that must not be.
"""

import random
import sys
from pathlib import Path

from outlive.depot.errors import ComponentMissing, PackageMissing
from outlive.depot.install import Installations
from outlive.depot.shelf import Shelf


def bring(origin: Shelf, shelf: Shelf, id: str) -> None:
    """As a host fetches it from another, a few KiB at a time."""
    with shelf.receive(origin.manifest(id)) as reception:
        for component in reception.missing():
            with reception.receive(component) as incoming:
                content = b"".join(origin.components.read(component, incoming.offset))
                for begin in range(0, len(content), 4096):
                    incoming.append(content[begin : begin + 4096])
                incoming.finish()
        reception.finish()


def act(chance: random.Random, origin: Shelf, shelf: Shelf, installations: Installations) -> None:
    """Do one thing. What another process takes away meanwhile may be missing, and nothing else may be wrong."""
    id = chance.choice(sorted(origin.ids()))
    try:
        match chance.choice(
            ["bring", "bring", "bring", "install", "install", "verify", "remove", "collect", "uninstall"]
        ):
            case "bring":
                bring(origin, shelf, id)
            case "install":
                installed = installations.install(id)
                assert installations.find(id) in (installed, None)
            case "verify":
                shelf.verify(id)
            case "remove":
                shelf.remove(id)
            case "collect":
                shelf.collect(young_s=chance.choice([0.0, 0.0, 3600.0]))
            case "uninstall":
                used = chance.sample(there := installations.all(), k=len(there) // 2)
                installations.uninstall_unused(lambda: used)
    except (PackageMissing, ComponentMissing):
        pass


def main() -> None:
    folder, chance = Path(sys.argv[1]), random.Random(sys.argv[2])
    shelf = Shelf(folder / "depot")
    origin, installations = Shelf(folder / "origin"), Installations(folder / "packages", shelf)
    while True:
        act(chance, origin, shelf, installations)


if __name__ == "__main__":
    main()
