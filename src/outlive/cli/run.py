"""`outlive run NAME -- COMMAND…`: protect a command as a workload, without writing a file."""

import json
from typing import TYPE_CHECKING

import click

from .apply import apply_text
from .connect import WORKLOAD, cluster_options, dry_run_option
from .output import json_option, print_json

if TYPE_CHECKING:
    from outlive.client import Client


@click.command(context_settings={"ignore_unknown_options": False})
@click.argument("name", type=WORKLOAD)
@click.argument("words", nargs=-1, required=True, metavar="-- COMMAND [ARGUMENT]…")
@click.option("--virtual-ip", multiple=True, metavar="ADDRESS/LENGTH", help="An address that moves with it.")
@click.option("--data-on", metavar="DATASTORE", help="Keep its data folder, {data}, on this datastore.")
@click.option("--environment", "-e", multiple=True, metavar="NAME=VALUE", help="A variable of its environment.")
@click.option("--user", metavar="USER", help="Run it as this user.")
@click.option("--cpus", type=float, help="Processors that it needs.")
@click.option("--memory-mib", type=int, help="Memory that it needs, in MiB.")
@click.option("--tcp", type=int, metavar="PORT", help="Healthy means: accepts connections on this port.")
@click.option("--print", "show", is_flag=True, help="Print the workload file instead of applying it.")
@click.option("--wait", "wait_s", type=float, default=60.0, show_default=True, help="Seconds to wait; 0: do not wait.")
@dry_run_option
@cluster_options
@json_option
def command(
    client: "Client",
    name: str,
    words: tuple[str, ...],
    virtual_ip: tuple[str, ...],
    data_on: str | None,
    environment: tuple[str, ...],
    user: str | None,
    cpus: float | None,
    memory_mib: int | None,
    tcp: int | None,
    show: bool,
    wait_s: float,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Protect COMMAND as the workload NAME: it is kept running somewhere, whatever host dies.

    \b
    outlive run web -- /usr/bin/python3 -m http.server 8000
    outlive run db --data-on local -- /usr/bin/redis-server --dir {data}
    """
    lines = [f"name = {_text(name)}"]
    if data_on:
        lines.append(f"data_on = {_text(data_on)}")
    lines += [f"[[virtual_ip]]\naddress = {_text(address)}" for address in virtual_ip]
    if cpus is not None or memory_mib is not None:
        lines.append("[resources]")
        lines += [f"cpus = {cpus}"] if cpus is not None else []
        lines += [f"memory_mib = {memory_mib}"] if memory_mib is not None else []
    lines += ["[module.main]", f"command = {json.dumps(list(words), ensure_ascii=False)}"]
    if user:
        lines.append(f"user = {_text(user)}")
    if environment:
        lines.append("[module.main.environment]")
        lines += [f"{_text(key)} = {_text(value)}" for key, value in map(_pair, environment)]
    if tcp is not None:
        address = '\naddress = "{address}"' if virtual_ip else ""
        lines.append(f'[[module.main.check]]\nkind = "tcp"\nport = {tcp}{address}')
    text = "\n".join(lines) + "\n"
    if show:
        click.echo(text, nl=False)
        return
    result = apply_text(client, text.encode(), "command line", wait_s, dry_run)
    if as_json:
        print_json(result)


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _pair(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise click.UsageError(f"{word!r} is not NAME=VALUE")
    return key, value
