"""Emptying a host and giving it back: the question before a loss, the progress, and what is told at the end.

Ctrl-C detaches: the leader goes on by itself, and the command says how it is taken back.
"""

import getpass
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from .connect import query, say, tell_commands
from .output import print_json
from .waiting import NotInTime

if TYPE_CHECKING:
    from rich.table import Table

    from outlive.client import Client

LOOK_S = 2.0


def user() -> str:
    """Who asks, for people."""
    import os

    return os.environ.get("SUDO_USER") or getpass.getuser()


def begin(
    client: "Client", host: str, reason: str, force: bool, yes: bool, wait_s: float, dry_run: bool, as_json: bool
) -> None:
    """Ask for a host to be emptied, and follow that."""
    if force and not dry_run:
        _confirm(client.get(f"/v1/hosts/{host}/maintenance"), yes)
    wish = {"force": force, "reason": reason, "by": user()}
    answer = client.put(f"/v1/hosts/{host}/maintenance{query(dry_run)}", wish)
    if dry_run:
        tell_commands(answer)
        for each in answer["plan"]:
            say(_line(each))
    else:
        say(f"{host} is in maintenance{'' if answer['changed'] else ' already'}; nothing new is placed there.")
        if wait_s > 0:
            back = f"`outlive maintenance off {host}` takes it back"
            answer = _follow(client, host, wait_s, f"Emptying {host} goes on by itself; {back}.")
            say(f"{host} is empty.")
    if as_json:
        print_json(answer)


def end(client: "Client", host: str, back: bool, wait_s: float, dry_run: bool, as_json: bool) -> None:
    """Ask for a host to be in service again, and follow what comes back."""
    words = ["back=1"] * back + ["dry_run=1"] * dry_run
    answer = client.delete(f"/v1/hosts/{host}/maintenance" + ("?" + "&".join(words) if words else ""))
    if dry_run:
        tell_commands(answer)
    elif not answer["changed"]:
        say(f"{host} is {'coming back already' if answer['record'] else 'in no maintenance'}.")
    else:
        say(f"{host} may have workloads again.")
        if back and wait_s > 0:
            answer = _follow(client, host, wait_s, f"What was on {host} goes on coming back; see `outlive ps`.")
            say("What was there has been asked back; see `outlive ps`.")
    if as_json:
        print_json(answer)


def _confirm(stands: dict[str, Any], yes: bool) -> None:
    """Say what would be lost, and ask. Raises click.Abort, or UsageError without a terminal."""
    lost = [each for each in stands["plan"] if each["to"] is None]
    if not lost or yes:
        return
    for each in lost:
        say(_line(each))
    if not sys.stdin.isatty():
        raise click.UsageError("--force would stop what is told above; say --yes to have that without a terminal.")
    if not click.confirm("These stay down, or unprotected, until a host can have them. Go on?", err=True):
        raise click.Abort


def _line(each: dict[str, Any]) -> str:
    name, how, to = each["workload"], each["how"], each["to"]
    if how == "standby":
        return f"{name}: {to} would stand by for it" if to else f"{name}: would have no standby ({each['reason']})"
    words = {"live": "moves live to", "handed over": "is handed over to", "restarted": "is started anew on"}
    return f"{name}: {words[how]} {to}" if to else f"{name}: can go nowhere ({each['reason']})"


def _follow(client: "Client", host: str, wait_s: float, goes_on: str) -> dict[str, Any]:
    """Wait until a host has reached what was wished, telling what is left. Raises NotInTime."""
    deadline, told = time.monotonic() + wait_s, ""
    try:
        while True:
            left_s = deadline - time.monotonic()
            answer: dict[str, Any] = client.get(
                f"/v1/hosts/{host}/maintenance?wait_s={min(LOOK_S, max(left_s, 0)):.1f}"
            )
            if answer["done"]:
                return answer
            if state(answer) != told:
                told = state(answer)
                say(told)
                for each in answer["plan"]:
                    if each["to"] is None:
                        say(f"  {_line(each)}")
            if left_s <= 0:
                raise NotInTime(f"{host} is not there after {wait_s:g} s.", cause=state(answer), remedy=goes_on)
    except KeyboardInterrupt:
        say(f"Detached. {goes_on}")
        raise


def state(answer: dict[str, Any]) -> str:
    """How a host stands, in a line."""
    host, record, left = answer["host"], answer["record"], [*answer["workloads"], *answer["standbys"]]
    if record is None:
        return f"{host} is in no maintenance" + (f"; emptying it would move {len(left)}." if left else ".")
    if record["phase"] == "returning":
        return f"{host}: {len(record['had'])} of what was there are still to come back."
    why = f" ({record['reason']})" if record["reason"] else ""
    done = len([name for name in record["had"] if name not in left])
    still = f"{len(left)} left: {', '.join(left[:6])}{' …' if left[6:] else ''}" if left else "it is empty"
    return f"{host} is in maintenance by {record['by']}{why}: {done} of {len(record['had'])} moved, {still}."


def table(plan: list[dict[str, Any]]) -> "Table":
    """Where each workload would go."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("WORKLOAD", "HOW", "TO", "WHY NOT"):
        shown.add_column(title)
    for each in plan:
        shown.add_row(*map(Text, (each["workload"], each["how"], each["to"] or "nowhere", each["reason"])))
    return shown
