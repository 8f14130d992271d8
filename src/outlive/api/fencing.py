"""The API's paths of hosts that are fenced: how far that is, and a person's word that one is off.

The word is taken only where `confirming` takes it, by the newest picture and by what this agent itself has heard; and
it is written only if nothing of that changed meanwhile.
"""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from outlive.cluster.confirming import confirmed, refusal, word
from outlive.errors import RefusedForSafety, UsageInvalid

from . import answers, once
from .bodies import DryRunOnly, body, decoded
from .declaring import query, route
from .problems import Conflict, Encoded, NotFound
from .view import View
from .wishes import seen

MOST_NAME = 200


class DeathWish(msgspec.Struct, forbid_unknown_fields=True):
    """That a host is off. host: its name, said once more. by: whose word that is."""

    host: str
    by: str = ""


class Fencing:
    """The handlers, around one agent's view."""

    def __init__(self, view: View) -> None:
        self.view = view

    @route("GET", "/v1/fences", answers.Fences)
    async def fences(self, request: Request) -> Response:
        """What is on record of hosts that are or were fenced, and the methods that this agent has."""
        mirror = self.view.mirror
        told: answers.Fences = {
            "proof_of_end": mirror.policies.record.proof_of_end,
            "fences": [entry.record for _, entry in sorted(mirror.fences.items())],
            "methods": [method.name for method in self.view.leader.methods],
        }
        return Encoded(told)

    @route("POST", "/v1/hosts/{name}/dead", answers.ConfirmedDead, query=DryRunOnly, body=DeathWish,
           problems=(404, 409))  # fmt: skip
    async def confirm_dead(self, request: Request) -> Response:
        """Take a person's word that a host is off, at the incarnation that it has; what it ran is started elsewhere.

        A dry run tells what would run twice if that were wrong.
        """
        view, host = self.view, request.path_params["name"]
        asked = decoded(await body(request), DeathWish)
        if asked.host != host:
            raise UsageInvalid(f"The request names {asked.host[:80]!r}, and its path {host[:80]!r}.")
        if len(asked.by) > MOST_NAME:
            raise UsageInvalid(f"The name of who says so has at most {MOST_NAME} characters.")
        mirror, signs = view.mirror, view.leader.signs.get(host)
        if host not in mirror.hosts and host not in mirror.claims and not mirror.placed_on(host):
            raise NotFound(f"There is no host {host[:80]}.", remedy="see `outlive status`")
        about = word(mirror, host, signs)
        workloads = list(about.workloads)
        why_not = refusal(mirror, host, signs, view.leader.timing, view.now())
        if why_not:
            raise RefusedForSafety(f"{host} is not taken for dead.", cause=why_not, remedy="see `outlive status`")
        told: answers.ConfirmedDead = {"host": host, "before": about.before, "changed": True, "workloads": workloads}
        if query(request, DryRunOnly).dry_run:
            return Encoded(told)
        by = f"{asked.by or 'somebody'} on {view.host}"
        machine = "the machine that had this name before" if about.before else "it"
        text = f"{by} says that {machine} is off; if it is not, these run twice: {', '.join(workloads)}"
        event = view.record("host.confirmed_dead", host=host, text=text)
        told |= {"event": event.id, "revision": 0}
        done = await once.transact(view, confirmed(mirror, host, signs, by, event.id), told)
        if not done.succeeded:
            raise Conflict(f"{host} changed meanwhile.", remedy="look at `outlive status`, and try again")
        await seen(view, done.revision)
        return Encoded({**told, "revision": done.revision})
