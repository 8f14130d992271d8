"""`outlive apply FILE…`: bring workloads to what their files say."""

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from .connect import (
    check_one,
    cluster_options,
    dry_run_option,
    force_option,
    if_revision_option,
    query,
    say,
    tell_commands,
    tell_notes,
)
from .output import json_option, print_json
from .waiting import until_state

if TYPE_CHECKING:
    from outlive.client import Client


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--wait", "wait_s", type=float, default=60.0, show_default=True, help="Seconds to wait; 0: do not wait.")
@if_revision_option
@force_option
@dry_run_option
@cluster_options
@json_option
def command(
    client: "Client",
    files: tuple[Path, ...],
    wait_s: float,
    if_revision: int | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Bring workloads to what their FILES say, and wait until they run.

    A new workload is started, a changed one is restarted with the change, an unchanged one is left alone. All mistakes
    of a file are told at once, each with its line.
    """
    check_one(if_revision, files)
    results = [
        apply_text(client, path.read_bytes(), str(path), wait_s, dry_run, path.parent, if_revision, force)
        for path in files
    ]
    if as_json:
        print_json({"workloads": results})


def apply_text(
    client: "Client",
    text: bytes,
    source: str,
    wait_s: float,
    dry_run: bool,
    folder: Path | None = None,
    if_revision: int | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Apply one workload file's text; tells what happens, returns the API's answer.

    folder: where the paths of files begin that it takes texts from; the agent gets these texts in their place.
    """
    from outlive.config.workload_file import parse_workload, without_files

    text = without_files(text, source, folder)
    name = parse_workload(text, source).name
    parameters = f"?source={quote(source, safe='')}{query(dry_run, force).replace('?', '&')}"
    result: dict[str, Any] = client.put(f"/v1/workloads/{name}{parameters}", text, if_revision)
    tell_notes(result)
    if dry_run:
        tell_commands(result)
    elif not result["changed"]:
        say(f"{name} is what {source} says already.")
    if not dry_run and wait_s > 0:
        stands = until_state(client, name, "running", wait_s)
        say(f"{name} runs on {stands['host']} (generation {stands['generation']}).")
    return result
