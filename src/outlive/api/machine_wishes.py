"""What is asked of virtual machines, before it is written: files completed or refused, operations cancelled.

What a file leaves to be agreed on is settled here, once, so that every host makes the same hardware of it. Nothing is
written here.
"""

from collections.abc import Mapping
from dataclasses import replace

from outlive.cluster import records as rec
from outlive.cluster.machine import Nic
from outlive.cluster.machine_rules import shared_mac
from outlive.cluster.mirror import Mirror
from outlive.cluster.overlay import Network
from outlive.cluster.workload import Workload
from outlive.errors import UsageInvalid

from .problems import Conflict

ABOUT_CHECKPOINTS = (rec.OperationKind.CHECKPOINT, rec.OperationKind.RESUME)


def completed(picture: Mirror, workload: Workload, stands: Workload | None, board: str | None) -> Workload:
    """The workload with what its file leaves to us: the exact version of its board, its cards' largest packets.

    board: the version for a machine that has none yet.
    A machine keeps what it has, whatever there is by now: the same file applied again changes nothing.
    """
    machine = workload.machine
    if machine is None:
        return workload
    before = stands.machine if stands is not None else None
    version = machine.version
    if version is None:
        kept = before is not None and before.type is machine.type
        version = before.version if before is not None and kept else board
    known = {nic.name: nic for nic in before.nics} if before is not None else {}
    networks = {name: entry.record for name, entry in picture.networks.items()}
    nics = tuple(_with_mtu(nic, known.get(nic.name), networks) for nic in machine.nics)
    return replace(workload, machine=replace(machine, version=version, nics=nics))


def _with_mtu(nic: Nic, before: Nic | None, networks: Mapping[str, Network]) -> Nic:
    """What is longer than its virtual network carries would be dropped without a word."""
    if nic.mtu is not None or nic.network is None:
        return nic
    if before is not None and before.network == nic.network:
        return replace(nic, mtu=before.mtu)
    network = networks.get(nic.network)
    return replace(nic, mtu=network.mtu) if network is not None else nic


def check_machine(picture: Mirror, workload: Workload) -> None:
    """Refuse a machine on a network that is not there, or with another's address on a card. Raises UsageInvalid."""
    for nic in workload.machine.nics if workload.machine is not None else ():
        if nic.network is not None and nic.network not in picture.networks:
            raise UsageInvalid(
                f"Card {nic.name} of {workload.name} is on the network {nic.network}, which does not exist.",
                remedy=f"make it first: outlive network create {nic.network}",
                id="network.missing",
            )
    shared = shared_mac(workload, (entry.record.workload for entry in picture.workloads.values()))
    if shared is not None:
        raise UsageInvalid(
            f"A card of {workload.name} has the address {shared[0]}, which is one of {shared[1]}'s.",
            remedy="give each card an address of its own, or leave it out: then one is made up",
            id="network.mac-taken",
        )


def cancelled(picture: Mirror, asked: rec.OperationRecord) -> rec.OperationRecord:
    """The operation as cancelled. Raises Conflict where it has ended, or cannot be taken back any more."""
    if asked.state in rec.ENDED:
        raise Conflict(f"Operation {asked.id} has ended already: it is {asked.state}.", cause=asked.reason)
    begun = asked.state is rec.OperationState.RUNNING and asked.kind is not rec.OperationKind.CHECKPOINT
    placed = picture.placements.get(asked.workload)
    if begun and placed is not None and placed.record.operation == asked.id:
        record = placed.record
        if record.order is rec.Order.STOP or record.generation != asked.generation:
            raise Conflict(
                f"Operation {asked.id} is too far to be cancelled.",
                cause=f"{asked.workload} was told to stop, and goes on from there",
                remedy=f"wait for its end, then move it where you want it: outlive migrate {asked.workload}",
            )
    return replace(asked, state=rec.OperationState.CANCELLED, reason="an operator cancelled it")
