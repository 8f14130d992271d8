"""`outlive apply FILE…`: bring workloads to what their files say."""

from collections.abc import Sequence
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
from .waiting import until_brought, until_state

if TYPE_CHECKING:
    from outlive.client import Client


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--wait", "wait_s", type=float, default=60.0, show_default=True, help="Seconds to wait; 0: do not wait.")
@if_revision_option
@force_option
@click.option("--upgrade", is_flag=True, help="Take the newest versions of their packages that the files allow.")
@click.option("--retry-failed", is_flag=True, help="The same, and also versions that were given up before.")
@dry_run_option
@cluster_options
@json_option
def command(
    client: "Client",
    files: tuple[Path, ...],
    wait_s: float,
    if_revision: int | None,
    force: bool,
    upgrade: bool,
    retry_failed: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Bring workloads to what their FILES say, and wait until they run.

    A new workload is started, a changed one is restarted with the change, an unchanged one is left alone. All mistakes
    of a file are told at once, each with its line.

    A workload that is brought to another version of its package goes back by itself when that does not become healthy;
    the command then ends with 1. Several files are brought one after the other, and the first failure ends it.
    """
    check_one(if_revision, files)
    words = [word for word, wanted in (("upgrade", upgrade), ("retry_failed", retry_failed)) if wanted]
    results = [
        apply_text(client, path.read_bytes(), str(path), wait_s, dry_run, path.parent, if_revision, force, words)
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
    words: Sequence[str] = (),
) -> dict[str, Any]:
    """Apply one workload file's text; tells what happens, returns the API's answer.

    folder: where the paths of files begin that it takes texts from; the agent gets these texts in their place.
    words: parameters of the request that are to be set, such as upgrade.
    """
    from outlive.config.workload_file import parse_workload, without_files

    text = without_files(text, source, folder)
    name = parse_workload(text, source).name
    parameters = f"?source={quote(source, safe='')}{query(dry_run, force).replace('?', '&')}"
    parameters += "".join(f"&{word}=1" for word in words)
    result: dict[str, Any] = client.put(f"/v1/workloads/{name}{parameters}", text, if_revision)
    tell_notes(result)
    if dry_run:
        tell_commands(result)
    elif not result["changed"]:
        say(f"{name} is what {source} says already.")
    if not dry_run and wait_s > 0:
        wait_s = until_brought(client, name, wait_s)
        stands = until_state(client, name, "running", wait_s)
        package = f" from {stands['package']}" if stands["package"] else ""
        say(f"{name} runs{package} on {stands['host']} (generation {stands['generation']}).")
    return result
