"""The API's paths of virtual networks: list, make or change, remove.

A network is one record in the store that every host follows. What cannot be is refused before it is written, and a
network that a machine is on is not taken from under it.
"""

from collections.abc import Collection
from hashlib import sha256

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from outlive.cluster import records as rec
from outlive.cluster.overlay import MOST_VNI, Network, Outside, problem_with
from outlive.cluster.transaction import Delete, Put, Transaction, unchanged
from outlive.errors import UsageInvalid

from . import answers, once
from .bodies import DryRunOnly, body, decoded
from .deciding import commands_for
from .declaring import query, route
from .paging import Page, ascending
from .problems import Conflict, Encoded, NotFound
from .view import View
from .wishes import seen


class OutsideWish(msgspec.Struct, forbid_unknown_fields=True):
    """A member that is no host of the cluster."""

    address: str
    macs: list[str] = []


class NetworkWish(msgspec.Struct, forbid_unknown_fields=True):
    """What a network shall be; what is left out stays, or is chosen."""

    vni: int | None = None
    mtu: int | None = None
    subnet: str | None = None
    outside: list[OutsideWish] | None = None

    def network(self, name: str, stands: Network | None, free: int) -> Network:
        """What is asked for. What is left out stays as it stands; `free` is the number of one that is new."""
        before = stands or Network(name, free)
        outside = before.outside
        if self.outside is not None:
            outside = tuple(Outside(each.address, tuple(each.macs)) for each in self.outside)
        return Network(
            name,
            before.vni if self.vni is None else self.vni,
            before.mtu if self.mtu is None else self.mtu,
            before.subnet if self.subnet is None else self.subnet,
            outside,
        )


def free_number(name: str, taken: Collection[int]) -> int:
    """The number of a network that was given none: always the same for the same name, and none of those taken."""
    first = int.from_bytes(sha256(name.encode()).digest()[:4], "big")
    return next(vni for step in range(len(taken) + 1) if (vni := (first + step) % MOST_VNI + 1) not in taken)


class Networks:
    """The handlers, around one agent's view."""

    def __init__(self, view: View) -> None:
        self.view = view

    @route("GET", "/v1/networks", answers.Networks, query=Page)
    async def all(self, request: Request) -> Response:
        """All networks, each with the machines that are on it, in pages."""
        kept = self.view.mirror.networks
        names, after = ascending("networks", kept, query(request, Page))
        shown = [{**msgspec.to_builtins(kept[name].record), "workloads": self._users(name)} for name in names]
        return Encoded({"networks": shown, "next": after})

    @route("PUT", "/v1/networks/{name}", answers.NetworkChanged, query=DryRunOnly, body=NetworkWish)
    async def put(self, request: Request) -> Response:
        """Make a network, or change one; what is left out of its body stays as it is."""
        name, picture = request.path_params["name"], self.view.mirror
        asked = decoded(await body(request), NetworkWish)
        stands = picture.networks.get(name)
        taken = {entry.record.vni for entry in picture.networks.values()}
        network = asked.network(name, stands.record if stands else None, free_number(name, taken))
        if problem := problem_with(network):
            raise UsageInvalid(f"There can be no such network {name[:80]}.", cause=problem)
        for other, entry in picture.networks.items():
            if other != name and entry.record.vni == network.vni:
                raise UsageInvalid(f"The number {network.vni} is {other}'s already.", remedy="choose another")
        if stands is not None and stands.record == network:
            return Encoded({"network": network, "changed": False})
        if stands is not None and stands.record.vni != network.vni and self._users(name):
            raise Conflict(f"Machines are on {name}; its number cannot be changed under them.")
        key = rec.NETWORKS + name
        if query(request, DryRunOnly).dry_run:
            commands = await commands_for(self.view, key, rec.encode(network))
            return Encoded({"network": network, "changed": True, "commands": commands})
        compare = unchanged(key, picture.bad[key][0] if key in picture.bad else stands.mod_revision if stands else 0)
        changed: answers.NetworkChanged = {"network": network, "changed": True}
        await self._write(Transaction((compare,), (Put(key, rec.encode(network)),)), name, changed)
        self.view.record("network.applied", text=f"{name}: VNI {network.vni}")
        return Encoded(changed)

    @route("DELETE", "/v1/networks/{name}", answers.NetworkChanged, query=DryRunOnly, problems=(404,))
    async def remove(self, request: Request) -> Response:
        """Remove a network that nothing is on."""
        name = request.path_params["name"]
        stands = self.view.mirror.networks.get(name)
        if stands is None:
            raise NotFound(f"There is no network {name[:80]}.", remedy="see `outlive network list`")
        if users := self._users(name):
            raise Conflict(
                f"The network {name} is in use.", cause=f"{', '.join(users)} is on it", remedy="remove that first"
            )
        key = rec.NETWORKS + name
        if query(request, DryRunOnly).dry_run:
            commands = await commands_for(self.view, key, None)
            return Encoded({"network": stands.record, "changed": True, "commands": commands})
        removed: answers.NetworkChanged = {"network": stands.record, "changed": True}
        await self._write(Transaction((unchanged(key, stands.mod_revision),), (Delete(key),)), name, removed)
        self.view.record("network.removed", text=name)
        return Encoded(removed)

    def _users(self, name: str) -> list[str]:
        return sorted(
            workload
            for workload, entry in self.view.mirror.workloads.items()
            if (machine := entry.record.workload.machine) is not None
            and any(nic.network == name for nic in machine.nics)
        )

    async def _write(self, transaction: Transaction, name: str, told: answers.NetworkChanged) -> None:
        done = await once.transact(self.view, transaction, told)
        if not done.succeeded:
            raise Conflict(f"The network {name} was changed by somebody else.", remedy="look at it, and try again")
        await seen(self.view, done.revision)
