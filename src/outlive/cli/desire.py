"""Having workloads run or be stopped, and waiting until they are: what `start` and `stop` share."""

from typing import TYPE_CHECKING

from .connect import check_one, query, say, tell_commands, tell_notes
from .output import print_json
from .waiting import until_state

if TYPE_CHECKING:
    from outlive.client import Client


def desire(
    client: "Client",
    names: tuple[str, ...],
    desired: str,
    done: str,
    wait_s: float,
    dry_run: bool,
    as_json: bool,
    if_revision: int | None,
    force: bool = False,
) -> None:
    """Ask for each, wait, tell. desired: running or stopped; done: how that is told of one."""
    check_one(if_revision, names)
    results = []
    for name in names:
        path = f"/v1/workloads/{name}/desired{query(dry_run, force)}"
        results.append(client.put(path, {"desired": desired}, if_revision))
        tell_notes(results[-1])
        if dry_run:
            tell_commands(results[-1])
        elif wait_s > 0:
            until_state(client, name, desired, wait_s)
            say(f"{name} {done}.")
    if as_json:
        print_json({"workloads": results})
