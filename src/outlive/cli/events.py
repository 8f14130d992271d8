"""`outlive events`: list what happened, in order, and follow what happens."""

import json
import time
from typing import TYPE_CHECKING, Any

import click

from .connect import HOST, WORKLOAD, cluster_options
from .output import json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outlive.client import Client


@click.command()
@click.option("--workload", "-w", type=WORKLOAD, metavar="NAME", help="Only of this workload.")
@click.option("--host", type=HOST, metavar="NAME", help="Only about this host.")
@click.option("--limit", "-n", type=click.IntRange(1, 5000), default=50, show_default=True, help="The last so many.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@cluster_options
@json_option
def command(client: "Client", workload: str | None, host: str | None, limit: int, follow: bool, as_json: bool) -> None:
    """List what happened, the oldest first."""
    if follow:
        for event in followed(client, limit):
            if (workload in (None, event["workload"])) and (host in (None, event["host"])):
                click.echo(json.dumps(event) if as_json else line(event))
        return
    found = client.get(
        f"/v1/events?limit={limit}" + (f"&workload={workload}" if workload else "") + (f"&host={host}" if host else "")
    )["events"]
    if as_json:
        print_json({"events": found})
        return
    for event in found:
        click.echo(line(event))


def line(event: dict[str, Any]) -> str:
    """One event as one line."""
    unix_ms = event["unix_ms"]
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_ms / 1000)) + f".{unix_ms % 1000:03d}"
    about = [f"{word}={event[word]}" for word in ("workload", "module", "host") if event[word]]
    about += [f"generation={event['generation']}"] if event["workload"] and event["generation"] else []
    text = f": {event['text']}" if event["text"] else ""
    return f"{stamp} {event['by']:8} {event['kind']:22} {' '.join(about)}{text}"


def followed(client: "Client", last: int, after: str = "") -> "Iterator[dict[str, Any]]":
    """The last so many events, or all after a mark, and on; taken up again when the agent goes away for a while."""
    from outlive.errors import ClusterUnreachable

    away = 0
    while True:
        headers = {"Last-Event-ID": after} if after else {}
        try:
            for raw in client.lines(f"/v1/events/stream?last={last}", headers):
                word, _, rest = raw.decode().rstrip("\n").partition(": ")
                if word == "id":
                    after = rest
                elif word == "data":
                    away = 0
                    yield json.loads(rest)
        except ClusterUnreachable:
            away += 1
            if away > 20:
                raise
        time.sleep(0.5)
