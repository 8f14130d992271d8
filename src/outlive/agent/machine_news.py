"""What a communication manager tells its agent, as what the node must know. Pure: nothing is done here.

Where an agent comes late, a manager's status stands for all that it had told before.
"""

from outlive.cluster import events as ev
from outlive.cluster.commands import Role
from outlive.replication import control

from .standing import Standing


def news_of(told: control.Event, about: Standing, at: float) -> ev.Event | None:
    """The event that what was told means for the node; None when it means nothing there."""
    name, generation, pairing = about.workload, about.generation, about.pairing
    is_primary = about.role is Role.PRIMARY
    match told:
        case control.Listening(port=port) if not is_primary:
            return ev.StandbyListening(at, name, generation, pairing, about.address, port)
        case control.Seeding() if not is_primary:
            return ev.StandbySeeding(at, name, generation, pairing)
        case control.Paired(generation=of, pairing=number):
            return ev.Paired(at, name, of, number) if is_primary else ev.StandbyWhole(at, name, of, number)
        case control.PeerLost(reason=reason) if reason == control.GUEST_ENDED and not is_primary:
            # What ended by its own will is not for a standby to go on with.
            return ev.StandbyFailed(at, name, generation, pairing, "the guest switched itself off")
        case control.PeerLost(reason=reason) if reason.startswith(control.OWN_DISK) and not is_primary:
            # Its primary is well; what cannot write is no better place to run.
            return ev.StandbyFailed(at, name, generation, pairing, reason)
        case control.PeerLost(pairing=number, reason=reason, epoch=epoch):
            return ev.PeerLost(at, name, generation, number, about.role, reason, epoch > 0)
        case control.HandedOver(pairing=number) if not is_primary:
            return ev.PeerLost(at, name, generation, number, about.role, "handed over", True)
        case _:
            return None


def missed(status: control.Status) -> control.Event | None:
    """What a manager told before this agent came, and still matters; None for nothing."""
    match status.phase:
        case "listening":
            return control.Listening(status.port)
        case "paired" | "following":
            return control.Paired(status.epoch, status.generation, status.pairing)
        # One that failed may have held output: only the store lets that go.
        case "lost" | "peer-lost" | "handed-over" | "failed":
            reason = status.reason or "it was lost while no agent ran"
            return control.PeerLost(reason, 0.0, status.epoch, status.generation, status.pairing)
        case _:
            return None
