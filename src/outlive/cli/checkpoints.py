"""`outlive checkpoints NAME`: list a machine's checkpoints, the newest first."""

import time
from typing import TYPE_CHECKING, Any

import click

from .checkpoint_names import checkpoints_of
from .connect import WORKLOAD, cluster_options, say
from .output import json_option, print_json, stdout_console

if TYPE_CHECKING:
    from outlive.client import Client

_MIB = 1 << 20


@click.command()
@click.argument("name", type=WORKLOAD)
@cluster_options
@json_option
def command(client: "Client", name: str, as_json: bool) -> None:
    """List a machine's checkpoints, the newest first, with what each takes on the datastore.

    One that needs another's memory is kept with it. Whether they are whole is for `outlive verify` to say.
    """
    answer = client.get(checkpoints_of(name))
    while answer.get("next"):
        page = client.get(f"{checkpoints_of(name)}?cursor={answer['next']}")
        answer |= {"checkpoints": answer["checkpoints"] + page["checkpoints"], "next": page["next"]}
    found = answer["checkpoints"]
    if as_json:
        print_json(answer)
    elif not found:
        say(f"{name} has no checkpoints yet." + (f" They will be on {answer['on']}." if answer["on"] else ""))
    else:
        _show(found)


def _show(found: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("CHECKPOINT", "MADE", "BY", "REASON", "NEEDS", "MIB", "PAUSE MS"):
        table.add_column(title, justify="right" if title in ("MIB", "PAUSE MS") else "left")
    for each in found:
        made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each["created_unix_s"]))
        name = f"{each['name']} ({each['label']})" if each["label"] else each["name"]
        reason = f"cannot be read: {each['problem']}" if each["problem"] else each["reason"]
        cells = (name, made, each["host"], reason, each["parent"] or "", f"{each['bytes'] / _MIB:.1f}")
        table.add_row(*map(Text, cells), Text(f"{each['pause_ms']:.1f}"))
    stdout_console().print(table)
