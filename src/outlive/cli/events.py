"""`outlive events`: list what happened, in order, and follow what happens."""

import json
import time
from typing import TYPE_CHECKING, Any

import click

from .connect import HOST, WORKLOAD, cluster_options, say
from .output import json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outlive.client import Client

SILENT_S = 35.0
"""An agent that says nothing for so long is gone: it says that it is still here every ten seconds."""
STORE_AWAY = "the store does not answer"
AGAIN_S = 0.5
MOST_TRIES = 20


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
        for event in followed(client, limit, about(workload, host)):
            click.echo(json.dumps(event) if as_json else line(event))
        return
    found = client.get(f"/v1/events?limit={limit}{about(workload, host)}")["events"]
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


def about(workload: str | None, host: str | None) -> str:
    """The part of the address that chooses events."""
    return (f"&workload={workload}" if workload else "") + (f"&host={host}" if host else "")


def followed(client: "Client", last: int, chosen: str = "", after: str = "") -> "Iterator[dict[str, Any]]":
    """The last so many events, or all after an id, and on; taken up again at any agent when one goes away."""
    from outlive.client.connection import Answered
    from outlive.errors import ClusterUnreachable

    away = 0
    while True:
        headers = {"Last-Event-ID": after} if after else {}
        try:
            for raw in client.lines(f"/v1/events/stream?last={last}{chosen}", headers, SILENT_S):
                word, _, rest = raw.decode().rstrip("\n").partition(": ")
                if word == "id":
                    after = rest
                elif word == "data":
                    away = 0
                    yield json.loads(rest)
                elif word == "" and rest == STORE_AWAY and client.another():
                    break
        except ClusterUnreachable:
            away += 1
            if away > MOST_TRIES:
                raise
            client.another()
        except Answered as refused:
            if refused.id != "events.gone" or after == str(refused.told.get("oldest", after)):
                raise
            say(f"{refused.sentence} What is kept follows.")
            after = str(refused.told["oldest"])
        time.sleep(AGAIN_S)
