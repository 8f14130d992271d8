"""What a manager tells means the same to the node whether the agent heard it at once or came late."""

import pytest

from outlive.agent.machine_news import missed, news_of
from outlive.agent.standing import Standing
from outlive.cluster import events as ev
from outlive.cluster.commands import Role
from outlive.replication import control

AT = 12.5
PRIMARY = Standing("web", 7, 3, Role.PRIMARY, "10.0.0.1")
STANDBY = Standing("web", 7, 3, Role.STANDBY, "10.0.0.2")
INCOMING = Standing("web", 7, 3, Role.INCOMING, "10.0.0.3")


@pytest.mark.parametrize(
    ("told", "about", "means"),
    [
        (control.Listening(4000), STANDBY, ev.StandbyListening(AT, "web", 7, 3, "10.0.0.2", 4000)),
        (control.Listening(4000), INCOMING, ev.StandbyListening(AT, "web", 7, 3, "10.0.0.3", 4000)),
        (control.Listening(4000), PRIMARY, None),
        (control.Seeding(1, 2, 1), STANDBY, ev.StandbySeeding(AT, "web", 7, 3)),
        (control.Seeding(1, 2, 1), PRIMARY, None),
        # Whose pairing it was is the manager's to say: the agent may have moved on meanwhile.
        (control.Paired(5, 6, 2), PRIMARY, ev.Paired(AT, "web", 6, 2)),
        (control.Paired(5, 6, 2), STANDBY, ev.StandbyWhole(AT, "web", 6, 2)),
        (
            control.PeerLost("silence", 150.0, 9, 7, 2),
            PRIMARY,
            ev.PeerLost(AT, "web", 7, 2, Role.PRIMARY, "silence", True),
        ),
        (
            control.PeerLost("silence", 150.0, 9, 7, 2),
            STANDBY,
            ev.PeerLost(AT, "web", 7, 2, Role.STANDBY, "silence", True),
        ),
        # A standby without an epoch has nothing to take over.
        (
            control.PeerLost("silence", 150.0, 0, 7, 3),
            STANDBY,
            ev.PeerLost(AT, "web", 7, 3, Role.STANDBY, "silence", False),
        ),
        # One that cannot write its own disk leaves the machine where it is.
        (
            control.PeerLost(f"{control.OWN_DISK} full", 0.0, 9, 7, 3),
            STANDBY,
            ev.StandbyFailed(AT, "web", 7, 3, f"{control.OWN_DISK} full"),
        ),
        (
            control.PeerLost(control.GUEST_ENDED, 0.0, 9, 7, 3),
            STANDBY,
            ev.StandbyFailed(AT, "web", 7, 3, "the guest switched itself off"),
        ),
        (
            control.PeerLost(control.GUEST_ENDED, 0.0, 9, 7, 3),
            PRIMARY,
            ev.PeerLost(AT, "web", 7, 3, Role.PRIMARY, control.GUEST_ENDED, True),
        ),
        (control.HandedOver(9, 7, 2), STANDBY, ev.PeerLost(AT, "web", 7, 2, Role.STANDBY, "handed over", True)),
        (control.HandedOver(9, 7, 2), PRIMARY, None),
        (control.WentAlone(4, 12), PRIMARY, None),
        (control.Adopted(9, 8, 20.0, 10.0), STANDBY, None),
        (control.Refused("pair", "old"), PRIMARY, None),
    ],
)
def test_what_is_told_and_what_it_means(told: control.Event, about: Standing, means: ev.Event | None) -> None:
    assert news_of(told, about, AT) == means


@pytest.mark.parametrize(
    ("phase", "epoch", "was"),
    [
        ("starting", 0, None),
        ("free", 0, None),
        ("seeding", 0, None),
        ("adopting", 5, None),
        ("a phase of a later version", 5, None),
        ("listening", 0, control.Listening(4000)),
        ("paired", 5, control.Paired(5, 7, 3)),
        ("following", 5, control.Paired(5, 7, 3)),
        ("lost", 5, control.PeerLost("silence", 0.0, 5, 7, 3)),
        ("peer-lost", 0, control.PeerLost("silence", 0.0, 0, 7, 3)),
        ("handed-over", 5, control.PeerLost("silence", 0.0, 5, 7, 3)),
        ("failed", 5, control.PeerLost("silence", 0.0, 5, 7, 3)),
    ],
)
def test_a_status_stands_for_what_was_told_while_no_agent_listened(
    phase: str, epoch: int, was: control.Event | None
) -> None:
    assert missed(control.Status(phase, 7, 3, epoch, 4000, reason="silence")) == was


def test_a_loss_without_a_reason_is_given_one() -> None:
    found = missed(control.Status("lost", 7, 3, 5))
    assert isinstance(found, control.PeerLost)
    assert found.reason == "it was lost while no agent ran"
