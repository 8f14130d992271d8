"""What the leader would decide if a record were another: what dry runs print.

The leader's agent is asked, since it alone has heard every host. It decides with the very machine that decides for the
cluster, on a picture that has the record; nothing is written, and nothing of that decision is performed. Without a
leader that answers there is no telling, which is said at once.
"""

from dataclasses import replace
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import structs
from starlette.requests import Request
from starlette.responses import Response

from outlive.cluster import leader, mirror
from outlive.cluster import records as rec
from outlive.cluster.commands import Command, RecordEvent, Transact
from outlive.cluster.events import StoreMoved, Tick
from outlive.cluster.transaction import Delete, KeyValue, Put
from outlive.errors import ClusterUnreachable, UsageInvalid, from_problem

from . import answers, relaying
from .bodies import body, decoded
from .declaring import route
from .problems import Encoded, NotFound
from .view import View

DECIDED_S = 5.0
MOST_BYTES = 8 * 1024 * 1024
SUPPOSABLE = (rec.WORKLOADS, rec.OPERATIONS, rec.NETWORKS, rec.MAINTENANCE, rec.POLICIES, rec.PACKAGES)
"""The records that operators' wishes are written in."""


class NoLeader(ClusterUnreachable):
    """Nobody leads the cluster at present."""

    id = "leader.none"


class Supposed(msgspec.Struct, forbid_unknown_fields=True):
    """A record of the store as it might be; value null: it is gone."""

    key: str
    value: bytes | None


class Decisions:
    """The handlers, around one agent's view."""

    def __init__(self, view: View) -> None:
        self.view = view

    @route("POST", "/v1/hosts/{host}/decisions", answers.Decided, body=Supposed, problems=(404,), to_peers=True,
           asks=True)  # fmt: skip
    async def decide(self, request: Request) -> Response:
        """What this host's leader machine would decide if a record were another. Nothing is changed."""
        asked, host = decoded(await body(request), Supposed), request.path_params["host"]
        if host != self.view.host:
            raise NotFound(f"This is {self.view.host}, not {host[:80]}.")
        _check(asked)
        decided: answers.Decided = {"commands": own_commands(self.view, asked.key, asked.value)}
        return Encoded(decided)


async def commands_for(view: View, key: str, value: bytes | None) -> list[dict[str, Any]]:
    """The very commands that the leader's decision gives if `key` had `value`, or were gone; nothing is written.

    Raises NoLeader, and ClusterUnreachable when the leader does not answer.
    """
    entry = view.mirror.leader
    if entry is None:
        raise NoLeader(
            "Nobody leads the cluster at present, so that nobody knows what would be decided.",
            remedy="another host leads within seconds; ask again then",
        )
    host = entry.record.host
    if host == view.host:
        return own_commands(view, key, value)
    path = f"/v1/hosts/{quote(host, safe='')}/decisions"
    wish = msgspec.json.encode(Supposed(key, value))
    answer = await relaying.whole(view, host, "POST", path, wish, most_bytes=MOST_BYTES, within_s=DECIDED_S)
    if answer.status_code != 200:
        raise from_problem(relaying.told(bytes(answer.body), dict[str, Any]))
    return relaying.told(bytes(answer.body), answers.Decided)["commands"]


def own_commands(view: View, key: str, value: bytes | None) -> list[dict[str, Any]]:
    """The same as this host's own leader machine decides, on what this host has heard."""
    picture = view.mirror
    revision = picture.revision + 1
    change = Delete(key) if value is None else KeyValue(key, value, revision, revision)
    supposed = mirror.changed(picture, revision, [change], view.now())
    if supposed.leader is None:
        supposed = replace(supposed, leader=mirror.Entry(rec.LeaderRecord(view.host), revision, revision))
    verdicts = {name: entry.record.verdict for name, entry in supposed.verdicts.items()}
    state = structs.replace(
        view.leader,
        mirror=picture,
        office_since=view.leader.office_since or 0.0,
        at=view.now(),
        ticked_at=None,
        in_flight=view.leader.in_flight.update({}),
        verdicts=view.leader.verdicts.update(verdicts),
    )
    led = replace(supposed, leader=replace(supposed.leader, record=rec.LeaderRecord(view.host)))  # type: ignore[type-var]
    state, first = leader.step(state, StoreMoved(view.now(), led, frozenset({key})))
    _, second = leader.step(state, Tick(view.now()))
    return [told(command) for command in (*first, *second) if is_decision(command)]


def is_decision(command: Command) -> bool:
    """Whether a command is told to people: verdicts are written again and again, and are no decision."""
    return isinstance(command, RecordEvent) or (isinstance(command, Transact) and command.purpose.act != "verdict")


def told(command: Command) -> dict[str, Any]:
    """A command as people and programs are told of it."""
    if isinstance(command, RecordEvent):
        event = command.event
        about = {"workload": event.workload, "host": event.host, "module": event.module, "text": event.text}
        return {"command": "record", "kind": event.kind, **{word: said for word, said in about.items() if said}}
    assert isinstance(command, Transact)
    writes = [
        {"put": write.key, "value": rec.decode(write.key, write.value)}
        if isinstance(write, Put)
        else {"delete": write.key}
        for write in command.transaction.writes
    ]
    return {"command": str(command.purpose.act), "writes": writes}


def _check(asked: Supposed) -> None:
    """Refuse what no wish is written in. Raises UsageInvalid."""
    problem = "" if asked.key == rec.POLICIES or asked.key.startswith(SUPPOSABLE) else "no wish is written there"
    try:
        if asked.value is not None and rec.decode(asked.key, asked.value) is None:
            problem = problem or "nothing is known of such keys"
    except rec.BadRecord as error:
        problem = error.cause
    if problem:
        raise UsageInvalid(f"{asked.key[:80]!r} cannot be supposed to be so.", cause=problem)
