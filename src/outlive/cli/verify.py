"""`outlive verify NAME [CHECKPOINT]`: read checkpoints to their last byte, and tell which are whole."""

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from outlive.errors import Degraded

from .checkpoint_names import CHECKPOINT, checkpoints_of
from .connect import WORKLOAD, cluster_options, say
from .output import json_option, print_json

if TYPE_CHECKING:
    from outlive.client import Client

_MIB = 1 << 20


class SomeDamaged(Degraded):
    """A checkpoint would not be gone on from."""

    id = "checkpoint.damaged"


@click.command()
@click.argument("name", type=WORKLOAD)
@click.argument("checkpoint", required=False, type=CHECKPOINT)
@cluster_options
@json_option
def command(client: "Client", name: str, checkpoint: str | None, as_json: bool) -> int:
    """Read a machine's checkpoints to their last byte, all of them or CHECKPOINT, and tell which are whole.

    Nothing is changed. It ends with 5 if any is damaged: the ones before it are gone on from in its place.
    """
    results: list[dict[str, Any]] = []
    for raw in client.lines(checkpoints_of(name, "/verify", checkpoint)):
        told = json.loads(raw)
        if "whole" not in told:
            _progress(told)
            continue
        _end_line()
        results.append(told)
        sentence = "is whole" if told["whole"] else f"is damaged: {told['problem']}"
        click.echo(f"{told['name']} {sentence}.", err=as_json)
    damaged = [each["name"] for each in results if not each["whole"]]
    if as_json:
        print_json({"workload": name, "checkpoints": results})
    if not results:
        say(f"{name} has no checkpoints yet.")
    if damaged and not as_json:
        whole = [each["name"] for each in results if each["whole"]]
        raise SomeDamaged(
            f"{len(damaged)} of {len(results)} checkpoints of {name} cannot be gone on from.",
            cause=", ".join(damaged),
            remedy=f"the newest whole one is {whole[0]}; make another with `outlive checkpoint {name}`"
            if whole
            else f"make one with `outlive checkpoint {name}`",
        )
    return SomeDamaged.exit_code if damaged else 0


def _progress(told: dict[str, Any]) -> None:
    if sys.stderr.isatty():
        done, total = told["done_bytes"] // _MIB, told["total_bytes"] // _MIB
        sys.stderr.write(f"\r\x1b[K{told['name']}: {done} of {total} MiB")
        sys.stderr.flush()


def _end_line() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
