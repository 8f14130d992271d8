"""Each checker finds what it is for: one rule is broken on purpose, and within a few seeds it says so.

A checker that cannot fail proves nothing. What is broken is a machine (wrapped, or one of its rules replaced) or a part
of the world; the worlds and faults are those of `outlive simulate`.
"""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from msgspec import structs

from outlive.cluster import (
    beside,
    copies,
    courses,
    failover,
    judging,
    leader,
    leader_state,
    node,
    pairing,
    pairs,
    placing,
    ranking,
    records,
    reigns,
    rollout,
    signs,
    standing_by,
    supervision,
)
from outlive.cluster import commands as do
from outlive.cluster.affinity import ALONE, Company
from outlive.cluster.commands import Act, Command
from outlive.cluster.events import AgentStarted, Event, Tick
from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.leader_state import LeaderState
from outlive.cluster.mirror import Mirror
from outlive.cluster.node_state import NodeState, Phase
from outlive.cluster.signs import Signs
from outlive.cluster.transaction import Put, Transaction
from outlive.cluster.workload import Workload
from outlive.sim import checkers, scenario
from outlive.sim.chance import draw
from outlive.sim.guard import Guard
from outlive.sim.guest import Guest, Mode
from outlive.sim.parts import Machines
from outlive.sim.world import MACHINES_RAISE_NOTHING, World

MOST_SEEDS = 60


def finds(
    checker: type[checkers.Checker],
    machines: Machines | None = None,
    prepare: Callable[[World], None] = lambda world: None,
    kinds: tuple[str, ...] | None = None,
) -> str:
    """The words with which the checker says what is wrong, in the first seed in which it does."""
    for seed in range(MOST_SEEDS):
        random = Random(seed)
        setup, faults = draw(random, kinds=kinds)
        world = World(setup, faults, random, machines=machines, checkers=(checker,))
        prepare(world)
        violation = world.run().violation
        if violation is not None:
            return f"{violation.checker}: {violation.text}"
    pytest.fail(f"{checker.__name__} found nothing in {MOST_SEEDS} seeds")


NodeStep = tuple[NodeState, tuple[Command, ...]]
LeaderStep = tuple[LeaderState, tuple[Command, ...]]


def test_never_two_finds_a_leader_that_ignores_claim_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "surely_over_at", lambda *_: float("-inf"))
    assert "while" in finds(checkers.NeverTwo)


def test_claims_never_overlap_finds_it_too_and_before_anything_runs_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "surely_over_at", lambda *_: float("-inf"))
    assert "may still act" in finds(checkers.ClaimsNeverOverlap)


def test_never_two_finds_a_guard_that_never_fires(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guard, "allows", lambda guard: True)

    def disarm(world: World) -> None:
        world.parts.guards_fire = False

    assert "while" in finds(checkers.NeverTwo, prepare=disarm, kinds=("unplug", "hang agent"))


def _places_at_the_old_generation(state: LeaderState, event: Event) -> LeaderStep:
    state, commands = leader.step(state, event)
    return state, tuple(_older(command) for command in commands)


def _older(command: Command) -> Command:
    if not isinstance(command, do.Transact) or command.purpose.act is not Act.PLACE:
        return command
    writes = []
    for write in command.transaction.writes:
        record = records.decode(write.key, write.value) if isinstance(write, Put) else None
        if isinstance(record, records.PlacementRecord) and record.generation > 1:
            write = Put(write.key, records.encode(replace(record, generation=record.generation - 1)))
        writes.append(write)
    return replace(command, transaction=Transaction(command.transaction.compares, tuple(writes)))


def test_generations_only_grow_finds_an_old_generation_that_is_accepted() -> None:
    found = finds(checkers.GenerationsOnlyGrow, Machines(leader_step=_places_at_the_old_generation))
    assert "generation" in found


def _forgets_what_ended(state: NodeState, event: Event) -> NodeStep:
    state, commands = node.step(state, event)
    for name, reign in state.reigns.items():
        if reign.phase is Phase.ENDED:
            left, acted = state.reigns.delete(name), state.acted.delete(name)
            state = structs.replace(state, reigns=left, acted=acted)
    return state, commands


def test_ended_stays_ended_finds_a_host_that_forgets_what_ended() -> None:
    assert "again" in finds(checkers.EndedStaysEnded, Machines(node_step=_forgets_what_ended), kinds=("isolate",))


def test_no_dead_while_slot_fresh_finds_a_leader_that_reads_no_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(host: str, seen: Signs, *rest: Any) -> Any:
        return replace(signs.evidence(host, seen, *rest), slot_s=None)

    monkeypatch.setattr(judging, "evidence", blind)
    assert "after its slot changed" in finds(checkers.NoDeadWhileSlotFresh)


def _never_campaigns_again(state: LeaderState, event: Event) -> LeaderStep:
    state, commands = leader.step(state, event)
    tired = event.at - state.listening_since > 8.0
    return state, tuple(
        command
        for command in commands
        if not (tired and isinstance(command, do.Transact) and command.purpose.act is Act.CAMPAIGN)
    )


def test_leader_replaced_finds_hosts_that_do_not_campaign() -> None:
    assert "nobody leads" in finds(checkers.LeaderReplaced, Machines(leader_step=_never_campaigns_again))


def test_leaders_write_in_their_term_finds_a_leader_that_does_not_compare_its_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def write(turn: leader_state.Turn, act: Act, key: str, compares: Any, writes: Any, because: str = "") -> None:
        turn.transact(act, key, Transaction(compares, writes), because=because)

    monkeypatch.setattr(leader_state.Turn, "write", write)
    assert "led" in finds(checkers.LeadersWriteInTheirTerm)


# Pairs.

LINKS = ("link", "stall managers")


def test_one_voice_finds_a_primary_that_lets_its_output_out_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    def never_holds(guest: Guest, reason: str) -> None:
        guest.lost, guest.mode = reason, Mode.FREE

    monkeypatch.setattr(Guest, "_lose", never_holds)
    assert "epoch" in finds(checkers.OneVoice, kinds=LINKS)


def test_one_voice_finds_output_that_leaves_before_it_is_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    def hasty(guest: Guest, turn: int) -> None:
        # The first epoch is sent, and output goes on leaving as if there were no standby.
        guest.send("epoch", guest.epoch, stretch=guest.stretch)
        guest.after(0.1, guest._seeded, turn)

    monkeypatch.setattr(Guest, "_seeded", hasty)
    assert "epoch" in finds(checkers.OneVoice, kinds=LINKS)


def test_one_voice_finds_a_standby_that_takes_over_without_comparing(monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(state: NodeState, event: Event) -> NodeStep:
        state, commands = node.step(state, event)
        return state, tuple(map(_uncompared, commands))

    assert finds(checkers.OneVoice, Machines(node_step=blind), kinds=LINKS)


def _uncompared(command: Command) -> Command:
    if not isinstance(command, do.Transact) or command.purpose.act not in (Act.TAKE_OVER, Act.ALONE):
        return command
    return replace(command, transaction=Transaction((), command.transaction.writes))


def _impatient(act: Act) -> Machines:
    """It lets its machine go on as soon as it has asked the store, whatever that will say."""

    def step(state: NodeState, event: Event) -> NodeStep:
        state, commands = node.step(state, event)
        for command in commands:
            if isinstance(command, do.Transact) and command.purpose.act is act:
                name, number = command.purpose.subject, command.purpose.number
                commands = (*commands, do.GoAlone(name, state.reigns[name].generation, number + 1, ""))
        return state, commands

    return Machines(node_step=step)


def test_one_voice_finds_a_primary_that_goes_on_alone_before_the_store_has_answered() -> None:
    assert "epoch" in finds(checkers.OneVoice, _impatient(Act.ALONE), kinds=LINKS)


def test_one_voice_finds_a_source_that_goes_on_before_it_knows_whether_it_moved() -> None:
    assert "epoch" in finds(checkers.OneVoice, _impatient(Act.MOVED), kinds=("move",))


def test_one_voice_finds_a_new_agent_that_takes_the_standing_pairing_for_one_that_is_over() -> None:
    def hasty(state: NodeState, event: Event) -> NodeStep:
        state, commands = node.step(state, event)
        if isinstance(event, AgentStarted):
            over = (do.GoAlone(name, reign.generation, reign.link.pairing, "") for name, reign in state.reigns.items())
            commands = (*commands, *over)
        return state, commands

    assert "epoch" in finds(checkers.OneVoice, Machines(node_step=hasty), kinds=("kill manager",))


def test_one_voice_finds_a_standby_that_takes_over_in_another_pairing(monkeypatch: pytest.MonkeyPatch) -> None:
    names = standing_by._names

    def any_pairing(placed: Any, standby: Any, me: str) -> bool:
        # It does not look at the pairing, nor at whether it is still the standby.
        return (placed.generation == standby.generation and placed.host != me) or names(placed, standby, me)

    monkeypatch.setattr(standing_by, "_names", any_pairing)
    assert finds(checkers.OneVoice, kinds=("link",))


def test_one_voice_finds_a_machine_that_is_restored_while_its_standby_may_take_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    follow_known = reigns._follow_known

    def restores(turn: Any, reign: Any, entry: Any) -> None:
        if entry is not None and entry.record.standby is not None:
            alone = replace(entry.record, standby=None, standby_claim=0, paired=False)
            if any(status is ModuleStatus.FAILED for status in reign.statuses.values()):
                alone = replace(alone, restores={"vm": reign.restored.get("vm", 0) + 1})
            if entry.record.generation == reign.generation and entry.record.host == turn.state.me:
                entry = replace(entry, record=alone)
        follow_known(turn, reign, entry)

    monkeypatch.setattr(reigns, "_follow_known", restores)
    assert finds(checkers.OneVoice, kinds=("crash module", "link", "stall managers"))


def test_disks_are_newest_finds_a_leader_that_starts_a_machine_wherever_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    choose = ranking.View.choose
    monkeypatch.setattr(ranking.View, "choose", lambda *about: choose(*about[:4]))
    assert "disks" in finds(checkers.DisksAreNewest, kinds=("crash",))


def test_disks_are_newest_finds_a_primary_that_goes_on_alone_and_does_not_say_that_its_standby_falls_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone = pairing._alone
    monkeypatch.setattr(
        pairing, "_alone", lambda placed, me, link: replace(alone(placed, me, link), disk_hosts=placed.disk_hosts)
    )
    assert "had said all up to" in finds(checkers.DisksAreNewest, kinds=("crash", "stall managers"))


def test_company_kept_finds_a_leader_that_does_not_look_at_who_is_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "company", lambda *_, **__: ALONE)
    assert "was placed on" in finds(checkers.CompanyKept)


def test_company_kept_finds_a_leader_whose_decisions_cross(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_the_picture_alone(turn: leader_state.Turn, workload: Workload, *, standby: bool = False) -> Company:
        around = beside.neighbours(turn.state.mirror, beside.relations(turn))
        return around.company(workload, standby=standby)

    monkeypatch.setattr(beside, "company", on_the_picture_alone)
    monkeypatch.setattr(beside, "is_unsettled", lambda *_: False)
    monkeypatch.setattr(beside, "still", lambda *_: ())
    apart = """
    host a site=main
    host b
    workload one apart-from=two prefer-sites=main
    workload two apart-from=one prefer-sites=main
    at 0.8 s: store-slow 1 for 4 s
    run 15 s
    """
    assert "was placed on" in finds_in(checkers.CompanyKept, script=apart)


def test_paired_goes_on_finds_a_standby_that_never_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing_by, "_ask_to_take_over", lambda *_: None)
    monkeypatch.setattr(pairs, "is_taking_over", lambda *_: True)
    assert "has not gone on with" in finds(checkers.PairedGoesOn, kinds=("crash",))


def test_pairable_is_paired_finds_a_leader_that_names_a_standby_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "_mind_lost", lambda turn, name: turn.set_course(name, pair_next_at=float("inf")))
    assert "could follow it" in finds(checkers.PairableIsPaired, kinds=LINKS)


def test_leaders_write_in_their_term_finds_a_standby_that_writes_more_than_is_its_to_write() -> None:
    def greedy(state: NodeState, event: Event) -> NodeStep:
        state, commands = node.step(state, event)
        return state, tuple(map(_further, commands))

    found = finds(checkers.LeadersWriteInTheirTerm, Machines(node_step=greedy), kinds=("crash", "link"))
    assert "wrote placements/" in found


def _further(command: Command) -> Command:
    if not isinstance(command, do.Transact) or command.purpose.act is not Act.TAKE_OVER:
        return command
    [write] = command.transaction.writes
    assert isinstance(write, Put)
    record = records.decode(write.key, write.value)
    assert isinstance(record, records.PlacementRecord)
    further = Put(write.key, records.encode(replace(record, generation=record.generation + 1)))
    return replace(command, transaction=Transaction(command.transaction.compares, (further,)))


def test_placeable_runs_again_finds_a_leader_that_gives_up_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courses, "_unplaced", lambda *_: True)
    assert "does not run" in finds(checkers.PlaceableRunsAgain)


def test_stopped_stays_down_finds_a_leader_that_does_not_pass_on_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "order_stop", lambda *_, **__: None)
    assert "not meant to run" in finds(checkers.StoppedStaysDown, kinds=("operator",))


def test_no_restart_storm_finds_restorations_without_bound_or_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    supervise = supervision.supervise

    def hasty(attempts: Any, status: Any, policy: Any, verify_s: float, at: float) -> Any:
        return supervise(attempts, status, replace(policy, attempts=10**6, backoff_s=0.0), verify_s, at)

    monkeypatch.setattr(courses, "supervise", hasty)
    assert "was started" in finds(checkers.NoRestartStorm)


def _hoards(state: LeaderState, event: Event) -> LeaderStep:
    state, commands = leader.step(state, event)
    return structs.replace(state, settling=state.settling.set(f"{event.at}", 0)), commands


def test_state_stays_bounded_finds_a_machine_that_forgets_nothing() -> None:
    assert "remembers" in finds(checkers.StateStaysBounded, Machines(leader_step=_hoards))


def test_placed_on_proof_finds_a_leader_that_takes_the_claim_s_end_for_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "needs_fence", lambda _: False)
    assert "nothing proves" in finds(checkers.PlacedOnProof, kinds=("crash", "fence ill"))


def test_hosts_that_live_are_left_alone_finds_a_leader_that_fences_whoever_it_likes() -> None:
    def strikes(state: LeaderState, event: Event) -> LeaderStep:
        after, commands = leader.step(state, event)
        if leader.in_office(after) and isinstance(event, Tick) and event.at - (after.office_since or 0.0) > 15.0:
            victim = next(name for name in after.mirror.hosts if name != after.me)
            commands = (*commands, do.Fence(victim, 10**9, "power", 1, (), ""))
        return after, commands

    assert "held its claim" in finds(checkers.HostsThatLiveAreLeftAlone, Machines(leader_step=strikes))


def _raises(state: NodeState, event: Event) -> NodeStep:
    if event.at - state.listening_since > 5.0:
        raise KeyError("w0")
    return node.step(state, event)


def test_a_machine_that_raises_is_a_violation_with_its_place() -> None:
    found = finds(checkers.NeverTwo, Machines(node_step=_raises))
    assert found.startswith(MACHINES_RAISE_NOTHING)
    assert "KeyError" in found


PACKAGED = """
    hosts a b c d
    package app@1.0.0 a
    package app@2.0.0 a
    workload one package=app@1.0.0
    workload two package=app@1.0.0
    """


def finds_in(checker: type[checkers.Checker], *lines: str, script: str = PACKAGED) -> str:
    """The same in a small world, with two workloads that run from a package if not told otherwise."""
    read = scenario.read("\n".join((script, *lines)))
    setup = replace(read.setup, calm_at_s=min(read.setup.calm_at_s, 15.0))
    violation = World(setup, read.faults, Random(1), checkers=(checker,)).run().violation
    assert violation is not None
    return f"{violation.checker}: {violation.text}"


BOTH = ("at 10 s: upgrade one app@2.0.0", "at 10 s: upgrade two app@2.0.0", "run 60 s")


def test_one_trial_at_a_time_finds_a_leader_that_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "_must_wait", lambda *_: "")
    assert "is down because of that" in finds_in(checkers.OneTrialAtATime, *BOTH)


def test_trials_end_finds_a_leader_that_never_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "_judge", lambda *_: False)
    assert "is still on trial" in finds_in(checkers.TrialsEnd, *BOTH)


def test_last_copy_stays_finds_hosts_that_drop_whatever_does_not_run_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "_may_go", lambda *_: True)
    monkeypatch.setattr(copies, "keepers", lambda *_: ())
    assert "dropped the last copy" in finds_in(checkers.LastCopyStays, "run 20 s")


def test_packages_are_kept_finds_a_leader_that_names_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "keepers", lambda *_: ())
    assert "hosts only" in finds_in(checkers.PackagesAreKept, "run 60 s")


SMALL = """
    hosts a b c
    workload web hosts=b,c
    at 12 s: crash b
    run 30 s
    """


def test_frozen_stays_as_it_is_finds_a_leader_that_does_not_heed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courses, "frozen", lambda *_: "")
    assert "though the cluster is frozen" in finds_in(checkers.FrozenStaysAsItIs, "at 2 s: freeze", script=SMALL)


def test_emptied_stays_empty_finds_a_leader_that_does_not_heed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mirror, "in_maintenance", lambda *_: False)
    assert "though it is to be empty" in finds_in(checkers.EmptiedStaysEmpty, "at 2 s: maintenance c", script=SMALL)
