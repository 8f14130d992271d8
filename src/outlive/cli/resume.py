"""`outlive resume NAME`: let a machine go on from a checkpoint, giving up what it did since."""

from typing import TYPE_CHECKING

import click

from .checkpoint_names import CHECKPOINT
from .connect import WORKLOAD, cluster_options, dry_run_option
from .operate import operate
from .output import json_option
from .rm import ask

if TYPE_CHECKING:
    from outlive.client import Client


@click.command()
@click.argument("name", type=WORKLOAD)
@click.option(
    "--at", "checkpoint", type=CHECKPOINT, metavar="CHECKPOINT", help="Which; without it, the newest whole one."
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask when it runs.")
@click.option("--wait", "wait_s", type=float, default=300.0, show_default=True, help="Seconds to wait; 0: do not wait.")
@dry_run_option
@cluster_options
@json_option
def command(
    client: "Client", name: str, checkpoint: str | None, yes: bool, wait_s: float, dry_run: bool, as_json: bool
) -> None:
    """Let a machine go on from a checkpoint: memory, devices and disks are as they were then.

    What it did since is given up, so you are asked first if it runs. A checkpoint that is damaged, or was made on other
    hardware, is refused before anything is changed.
    """
    stands = client.get(f"/v1/workloads/{name}")["outlook"]
    if stands["host"] and not (yes or dry_run):
        at = f"the checkpoint {checkpoint}" if checkpoint else "its newest checkpoint"
        ask(f"{name} runs on {stands['host']}. Give up what it did since {at}?")
    operate(client, "resume", name, None, wait_s, dry_run, as_json, checkpoint or "")
