"""Asking for a long action and following it to its end: what `migrate`, `failover` and those of checkpoints share."""

from typing import TYPE_CHECKING

from outlive.errors import Failed, RefusedForSafety

from .connect import query, say, tell_commands
from .moving import stood_still_ms, until_moved
from .output import print_json
from .waiting import until_ended

if TYPE_CHECKING:
    from outlive.client import Client


def operate(
    client: "Client",
    kind: str,
    name: str,
    target: str | None,
    wait_s: float,
    dry_run: bool,
    as_json: bool,
    checkpoint: str | None = None,
) -> None:
    """Ask, wait, tell. Raises RefusedForSafety or Failed with the operation's own reason.

    checkpoint: which to make or to go on from, for the kinds that are about one.
    """
    figures: dict[str, int] = {}
    about = {} if checkpoint is None else {"checkpoint": checkpoint}
    asked = {"kind": kind, "workload": name, "target": target, **about}
    result = client.post(f"/v1/operations{query(dry_run)}", asked)
    operation = result["operation"]
    if dry_run:
        tell_commands(result)
    else:
        say(f"{kind} of {name} was asked for ({operation['id']}).")
    if wait_s > 0 and not dry_run:
        if kind == "migrate":
            operation = until_moved(client, name, operation["id"], wait_s)
        else:
            operation = until_ended(client, operation["id"], wait_s)
        if operation["state"] == "refused":
            raise RefusedForSafety(f"The {kind} of {name} was refused.", cause=operation["reason"])
        if operation["state"] == "failed":
            raise Failed(f"The {kind} of {name} failed.", cause=operation["reason"], remedy=f"see `outlive why {name}`")
        if operation["state"] == "cancelled":
            raise Failed(f"The {kind} of {name} was cancelled.", cause=operation["reason"])
        still_ms = stood_still_ms(client, name) if kind == "migrate" else None
        figures = {} if still_ms is None else {"stood_still_ms": still_ms}
        say(f"Done: {operation['reason']}." if operation["reason"] else "Done.")
        if still_ms is not None:
            say(f"It stood still for about {still_ms} ms.")
    if as_json:
        print_json({"operation": operation, "commands": result.get("commands", []), **figures})
