"""Hot arbitration, word by word: what one host of a pair is told, and what it asks for."""

from dataclasses import replace
from textwrap import dedent

from msgspec import structs

from outlive.cluster.commands import Role
from outlive.cluster.events import (
    Outcome,
    Paired,
    PeerLost,
    StandbyDiscarded,
    StandbyListening,
    StandbySeeding,
    StandbyWhole,
    TookOver,
)
from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.node_state import Link, Phase, Reign
from outlive.cluster.records import PlacementRecord, StandbyRecord, StandbyStage

from .playbook import CLAIM, Playbook
from .small_world import machine

AT = 0.0
ON_A = PlacementRecord("vm", 7, "a", 3, standby="b", standby_claim=CLAIM, pairing=2, disk_hosts=("a",))
LOST = PeerLost(AT, "vm", 7, 2, Role.STANDBY, "silent for 150 ms", whole=True)


def conversation(told: str) -> list[str]:
    return dedent(told).strip().splitlines()


def standby() -> Playbook:
    """Host b, which holds a whole epoch of pairing 2 of generation 7."""
    talk = Playbook(machine("vm"))
    talk.stands(ON_A, say="b follows a")
    talk.hears(StandbyListening(AT, "vm", 7, 2, "10.0.0.2", 4000))
    talk.hears(StandbySeeding(AT, "vm", 7, 2))
    talk.hears(StandbyWhole(AT, "vm", 7, 2))
    return talk


def primary() -> Playbook:
    """Host b, which runs generation 7, with a as its standby in pairing 2."""
    talk = Playbook(machine("vm"))
    workload = machine("vm")
    statuses = {"vm": ModuleStatus.RUNNING}
    reign = Reign(workload, 7, CLAIM, Phase.ACTIVE, statuses, "", started=frozenset({"vm"}), was_running=True)
    talk.state = structs.replace(talk.state, reigns=talk.state.reigns.set("vm", reign))
    talk.stands(ON_B, say="a follows b")
    listens = StandbyRecord("vm", 7, 2, "a", 3, StandbyStage.LISTENING, "10.0.0.1", 4000)
    talk.stands(listens, say="a listens")
    return talk


ON_B = PlacementRecord("vm", 7, "b", CLAIM, standby="a", standby_claim=3, pairing=2, disk_hosts=("b",))
PRIMARY_LOST = PeerLost(AT, "vm", 7, 2, Role.PRIMARY, "silent for 150 ms", whole=True)


def test_a_standby_makes_ready_follows_and_takes_over() -> None:
    talk = standby()
    talk.hears(LOST)
    talk.answers(Outcome.DONE)
    talk.hears(TookOver(AT, "vm", 8))
    assert talk.lines == conversation(
        """
        >> store: b follows a
        << PrepareStandby generation=7 pairing=2
        << standby
        >> StandbyListening generation=7 pairing=2 address=10.0.0.2
        >> StandbySeeding generation=7 pairing=2
        >> StandbyWhole generation=7 pairing=2
        >> PeerLost generation=7 pairing=2
        << take over
        >> take over done
        << TakeOver generation=7 pairing=2 to_generation=8
        >> TookOver generation=8
        """
    )
    wrote = talk.wrote()
    assert (wrote.generation, wrote.host, wrote.claim, wrote.took_over) == (8, "b", CLAIM, True)
    assert (wrote.pairing, wrote.standby, wrote.disk_hosts, wrote.copies) == (2, None, ("b",), ("a",))


def test_a_standby_that_is_refused_asks_again_when_the_placement_still_names_it() -> None:
    talk = standby()
    talk.lines.clear()
    talk.hears(LOST)
    talk.answers(Outcome.REFUSED)
    talk.stands(replace(ON_A, paired=True, disk_hosts=("a", "b")), say="they are paired")
    talk.answers(Outcome.DONE)
    assert talk.lines == conversation(
        """
        >> PeerLost generation=7 pairing=2
        << take over
        >> take over refused
        >> store: they are paired
        << take over
        >> take over done
        << TakeOver generation=7 pairing=2 to_generation=8
        """
    )


def test_a_standby_whose_primary_was_faster_is_discarded() -> None:
    talk = standby()
    talk.lines.clear()
    talk.hears(LOST)
    talk.answers(Outcome.REFUSED)
    talk.stands(replace(ON_A, standby=None, standby_claim=0, pairing=3), say="a goes on alone")
    talk.hears(StandbyDiscarded(AT, "vm", 7, 2))
    talk.passes(3)
    assert talk.lines == conversation(
        """
        >> PeerLost generation=7 pairing=2
        << take over
        >> take over refused
        >> store: a goes on alone
        << DiscardStandby generation=7 pairing=2
        >> StandbyDiscarded generation=7 pairing=2
        >> 3 s pass
        """
    )


def test_a_standby_that_gets_no_answer_asks_again_until_it_knows() -> None:
    talk = standby()
    talk.lines.clear()
    talk.hears(LOST)
    talk.answers(Outcome.UNKNOWN)
    talk.passes(1.2)
    won = replace(ON_A, generation=8, host="b", claim=CLAIM, standby=None, standby_claim=0, took_over=True)
    talk.stands(won, say="b has it")
    assert talk.lines == conversation(
        """
        >> PeerLost generation=7 pairing=2
        << take over
        >> take over unknown
        >> 1.2 s pass
        << take over
        >> store: b has it
        << TakeOver generation=7 pairing=2 to_generation=8
        """
    )


def test_a_primary_seeds_holds_and_goes_on_alone_only_by_the_stores_word() -> None:
    talk = primary()
    talk.hears(Paired(AT, "vm", 7, 2))
    talk.answers(Outcome.DONE)
    talk.stands(replace(ON_B, paired=True, disk_hosts=("b", "a")), say="they are paired")
    talk.hears(PRIMARY_LOST)
    talk.answers(Outcome.DONE)
    assert talk.lines[1:] == conversation(
        """
        >> store: a listens
        << Pair generation=7 pairing=2 address=10.0.0.1
        >> Paired generation=7 pairing=2
        << paired
        >> paired done
        >> store: they are paired
        >> PeerLost generation=7 pairing=2
        << alone
        >> alone done
        << GoAlone generation=7 pairing=3
        """
    )
    wrote = talk.wrote()
    assert (wrote.generation, wrote.pairing, wrote.standby, wrote.disk_hosts) == (7, 3, None, ("b",))


def test_a_primary_that_was_taken_over_is_torn_down_and_never_let_go() -> None:
    talk = primary()
    talk.lines.clear()
    talk.hears(PRIMARY_LOST)
    talk.answers(Outcome.REFUSED)
    taken = replace(ON_B, generation=8, host="a", claim=3, standby=None, standby_claim=0, took_over=True)
    talk.stands(taken, say="a took over")
    assert talk.lines == conversation(
        """
        >> PeerLost generation=7 pairing=2
        << alone
        >> alone refused
        >> store: a took over
        << TearDown generation=7
        """
    )


def test_without_a_store_a_primary_holds_for_as_long_as_it_may() -> None:
    talk = primary()
    talk.lines.clear()
    talk.hears(PRIMARY_LOST)
    talk.answers(Outcome.UNKNOWN)
    talk.passes(2.2)
    assert talk.lines == conversation(
        """
        >> PeerLost generation=7 pairing=2
        << alone
        >> alone unknown
        >> 2.2 s pass
        << alone
        << alone
        """
    )


def test_a_primary_finds_in_the_store_that_it_had_won() -> None:
    talk = primary()
    talk.lines.clear()
    talk.hears(PRIMARY_LOST)
    talk.answers(Outcome.UNKNOWN)
    talk.stands(replace(ON_B, standby=None, standby_claim=0, pairing=3), say="b goes on alone")
    assert talk.lines[-2:] == [">> store: b goes on alone", "<< GoAlone generation=7 pairing=3"]


def adopted(*, told: bool) -> Playbook:
    """Host b's next agent: its journal says whether it had begun pairing 2."""
    talk = Playbook(machine("vm"))
    statuses = {"vm": ModuleStatus.RUNNING}
    link = Link(pairing=2, told=told, adopted=True)
    reign = Reign(machine("vm"), 7, CLAIM, Phase.ACTIVE, statuses, "", frozenset({"vm"}), was_running=True, link=link)
    talk.state = structs.replace(talk.state, reigns=talk.state.reigns.set("vm", reign))
    return talk


LISTENS = StandbyRecord("vm", 7, 2, "a", 3, StandbyStage.WHOLE, "10.0.0.1", 4000)


def test_a_new_agent_never_lets_output_out_while_the_pairing_stands_that_was_begun() -> None:
    talk = adopted(told=True)
    talk.stands(replace(ON_B, paired=True), LISTENS, say="a follows b, and is whole")
    ended = PeerLost(AT, "vm", 7, 0, Role.PRIMARY, "its manager ended while no agent ran")
    talk.hears(ended)
    talk.passes(0.5)
    talk.answers(Outcome.DONE)
    assert talk.lines == conversation(
        """
        >> store: a follows b, and is whole
        << Pair generation=7 pairing=2 address=10.0.0.1
        >> PeerLost generation=7
        << alone
        >> 0.5 s pass
        >> alone done
        << GoAlone generation=7 pairing=3
        """
    )


def test_a_machine_that_nobody_follows_gets_another_manager_for_one_that_ended_while_no_agent_ran() -> None:
    talk = adopted(told=False)
    talk.stands(replace(ON_B, standby=None, standby_claim=0), say="b is alone")
    talk.hears(PeerLost(AT, "vm", 7, 0, Role.PRIMARY, "its manager ended while no agent ran"))
    talk.answers(Outcome.DONE)
    assert talk.lines[-3:] == ["<< alone", ">> alone done", "<< GoAlone generation=7 pairing=3"]


def test_a_new_agent_ends_a_pairing_that_is_over_before_it_begins_the_one_that_was_not_begun() -> None:
    talk = adopted(told=False)
    talk.stands(ON_B, LISTENS, say="a follows b")
    assert talk.lines[1:] == [
        "<< GoAlone generation=7 pairing=2",
        "<< Pair generation=7 pairing=2 address=10.0.0.1",
    ]
    talk = adopted(told=True)
    talk.stands(replace(ON_B, standby=None, standby_claim=0, pairing=3), say="b is alone")
    assert talk.lines[1:] == ["<< GoAlone generation=7 pairing=3"]
    talk = adopted(told=True)
    talk.hears(PeerLost(AT, "vm", 7, 1, Role.PRIMARY, "silent"))
    assert talk.lines[1:] == ["<< GoAlone generation=7 pairing=2"]
