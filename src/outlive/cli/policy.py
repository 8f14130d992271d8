"""`outlive policy …`: what holds for all hosts and workloads of the cluster."""

from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from .connect import cluster_options, dry_run_option, say, tell_commands
from .output import json_option, print_json, stdout_console

if TYPE_CHECKING:
    from outlive.client import Client
    from outlive.cluster.policies import Policies


@click.group()
def command() -> None:
    """Show or set what holds for all hosts and workloads.

    The cluster is frozen and unfrozen with `outlive freeze` and `outlive unfreeze`.
    """


@command.command(short_help="Show the policies that hold.")
@cluster_options
@json_option
def show(client: "Client", as_json: bool) -> None:
    """Show the policies that hold, and what each is for."""
    answer = client.get("/v1/policies")
    if as_json:
        print_json(answer)
        return
    if answer["problem"]:
        say(f"The record in the store cannot be read ({answer['problem']}); these hold meanwhile.")
    _table(answer["policies"])


def _table(policies: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from outlive.cluster.policies import KEYS, told

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("POLICY", "VALUE", "WHAT IT SAYS"):
        table.add_column(title)
    for key, value in told(_policies(policies)).items():
        table.add_row(*map(Text, (key, value, KEYS[key])))
    stdout_console().print(table)


def _policies(answer: dict[str, Any]) -> "Policies":
    import msgspec

    from outlive.cluster.policies import Policies

    return msgspec.convert(answer, Policies)


def _settings(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from outlive.cluster.fence import EndProof
    from outlive.cluster.policies import KEYS, AdmissionMode
    from outlive.cluster.workload import OnIsolation

    key, has_value, value = incomplete.partition("=")
    if not has_value:
        return [CompletionItem(f"{each}=", help=what) for each, what in KEYS.items() if each.startswith(key)]
    words = {"admission.mode": [*AdmissionMode], "proof_of_end": [*EndProof], "on_isolation": [*OnIsolation]}
    modes = [str(word) for word in words.get(key, ())]
    return [CompletionItem(f"{key}={mode}") for mode in modes if mode.startswith(value)]


@command.command("set", short_help="Set policies.")
@click.argument("settings", nargs=-1, required=True, metavar="KEY=VALUE…", shell_complete=_settings)
@dry_run_option
@cluster_options
@json_option
def set_(client: "Client", settings: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Set policies, as in `outlive policy set admission.mode=refuse retry_minutes=0,1,5`.

    What is not named stays as it is. It holds at once, for all hosts.
    """
    from .connect import query

    wanted = _asked(client, settings)
    answer = client.put(f"/v1/policies{query(dry_run)}", wanted)
    if dry_run:
        tell_commands(answer)
    elif answer["changed"]:
        say("The policies are set.")
    else:
        say("The policies are so already.")
    if as_json:
        print_json(answer)


def _asked(client: "Client", settings: tuple[str, ...]) -> dict[str, Any]:
    """The settings as the API takes them: only what is named, so that nobody else's change is undone."""
    import msgspec

    from outlive.cluster.policies import Policies, changed

    words: dict[str, str] = {}
    for setting in settings:
        key, has_value, value = setting.partition("=")
        if not has_value:
            raise click.UsageError(f"{setting!r} does not say KEY=VALUE.")
        words[key.strip()] = value
    whole: dict[str, Any] = msgspec.to_builtins(changed(Policies(), words))
    asked: dict[str, Any] = {}
    for key in words:
        room, _, name = key.partition(".")
        if name:
            asked.setdefault(room, {})[name] = whole[room][name]
        else:
            asked[room] = whole[room]
    return asked
