"""What the leader would decide if hosts died now, told by any agent; nothing is written, and nobody dies.

The leader's agent is asked, since it alone has heard every host and remembers what failed. When it does not answer, or
none leads, or it is among the lost, the agent that was asked tells it from what it has heard itself. The machine runs
beside the loop, for a bounded time.
"""

import asyncio
import time
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from outlive.cluster.what_if import foretell
from outlive.errors import ClusterUnreachable, UsageInvalid, from_problem

from . import answers, relaying
from .bodies import body, decoded
from .deciding import is_decision, told
from .declaring import route
from .problems import Encoded, NotFound
from .view import View

FORETOLD_S = 20.0
"""How long the machine may run. What it has decided by then is told, as not whole."""
ANSWER_S = FORETOLD_S + 10.0
MOST_BYTES = 64 * 1024 * 1024


class Loss(msgspec.Struct, forbid_unknown_fields=True):
    """The hosts that would die, each by name or all of a site."""

    lose: tuple[str, ...] = ()
    lose_sites: tuple[str, ...] = ()


class WhatIf:
    """The handlers, around one agent's view."""

    def __init__(self, view: View) -> None:
        self.view = view
        self._one_at_a_time = asyncio.Lock()

    @route("POST", "/v1/what-if", answers.WhatIf, body=Loss, problems=(404,), asks=True)
    async def cluster(self, request: Request) -> Response:
        """What the leader would decide if these hosts died now, all at once. Nothing is changed."""
        lost, leads = self._named(decoded(await body(request), Loss)), self.view.mirror.leader
        host = leads.record.host if leads is not None else self.view.host
        if host != self.view.host and host not in lost:
            path = f"/v1/hosts/{quote(host, safe='')}/what-if"
            wish = msgspec.json.encode(Loss(tuple(sorted(lost))))
            try:
                return await self._of_leader(host, path, wish)
            except ClusterUnreachable:
                pass  # what this host has heard has to do
        return Encoded(await self._own(lost))

    @route("POST", "/v1/hosts/{host}/what-if", answers.WhatIf, body=Loss, problems=(404,), to_peers=True, asks=True)
    async def host(self, request: Request) -> Response:
        """The same, as this host's own leader machine decides by what it has heard."""
        asked, host = decoded(await body(request), Loss), request.path_params["host"]
        if host != self.view.host:
            raise NotFound(f"This is {self.view.host}, not {host[:80]}.")
        return Encoded(await self._own(self._named(asked)))

    def _named(self, asked: Loss) -> frozenset[str]:
        """The hosts that are meant. Raises NotFound, and UsageInvalid when none are."""
        hosts = self.view.mirror.hosts
        for name in asked.lose:
            if name not in hosts:
                raise NotFound(f"There is no host {name[:80]}.", remedy="see `outlive status`")
        sites = {entry.record.site for entry in hosts.values()}
        for name in asked.lose_sites:
            if name not in sites:
                raise NotFound(f"There is no host in a site {name[:80]}.", remedy="see `outlive status`")
        lost = {*asked.lose, *(name for name, each in hosts.items() if each.record.site in asked.lose_sites)}
        if not lost:
            raise UsageInvalid("Say which hosts would be lost.", remedy="name hosts in lose, or sites in lose_sites")
        return frozenset(lost)

    async def _of_leader(self, host: str, path: str, wish: bytes) -> Response:
        answer = await relaying.whole(self.view, host, "POST", path, wish, most_bytes=MOST_BYTES, within_s=ANSWER_S)
        if answer.status_code >= 500:
            raise from_problem(relaying.told(bytes(answer.body), dict[str, Any]))
        return answer

    async def _own(self, lost: frozenset[str]) -> answers.WhatIf:
        async with self._one_at_a_time:
            deadline = time.monotonic() + FORETOLD_S
            state = self.view.leader
            found = await asyncio.to_thread(foretell, state, lost, go_on=lambda: time.monotonic() < deadline)
        return {
            "lost": list(found.lost),
            "leader": found.leader,
            "by": self.view.host,
            "decisions": list(found.decisions),
            "without": list(found.without),
            "whole": found.whole,
            "commands": [told(each) for each in found.commands if is_decision(each)],
        }
