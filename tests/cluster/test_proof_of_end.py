"""What it takes to hold a host to be ended where the policy asks for a fence, and when a person's word is taken."""

from dataclasses import replace

import pytest
from immutables import Map
from msgspec.structs import replace as replaced

from outlive.cluster import records as rec
from outlive.cluster.boot import boot_id
from outlive.cluster.confirming import Word, confirmed, refusal, word
from outlive.cluster.failover import Proof, Wait, proof_of_end
from outlive.cluster.fence import BY_HAND, EndProof, FenceState
from outlive.cluster.heartbeat import Flags, Heartbeat, ModuleTable
from outlive.cluster.mirror import ClaimSeen, Entry, Mirror
from outlive.cluster.policies import Policies
from outlive.cluster.signs import Signs
from outlive.cluster.timing import Timing
from outlive.cluster.transaction import Put, absent, same_incarnation

from .small_world import host, service

AT = 1000.0
CLAIM = 7
PLACED = rec.PlacementRecord("web", 3, "b", CLAIM)
ENDED = ClaimSeen(CLAIM, False, AT - 60.0, 9, rec.ClaimRecord("b", "", "r", 1, 1), 0.0)
SILENT = Signs()


def picture(proof: EndProof = EndProof.FENCE, fence: rec.FenceRecord | None = None, **changes: object) -> Mirror:
    base = Mirror(
        revision=50,
        hosts=Map({"b": Entry(host("b"), 1, 1)}),
        claims=Map({"b": ENDED}),
        placements=Map({"web": Entry(PLACED, 8, 8)}),
        there=Map({"b": frozenset({"web"})}),
        verdicts=Map({"b": Entry(rec.VerdictRecord("b", rec.Verdict.DEAD), 5, 40)}),
        policies=Entry(Policies(proof_of_end=proof), 2, 2),
        fences=Map({"b": Entry(fence, 45, 45)}) if fence is not None else Map(),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def fence(state: FenceState, claim: int = CLAIM) -> rec.FenceRecord:
    return rec.FenceRecord("b", claim, state, "ipmi", "a", "ipmi: connection refused")


def judged(
    mirror: Mirror, signs: Signs = SILENT, verdict: rec.Verdict = rec.Verdict.DEAD, freed: bool = False
) -> object:
    return proof_of_end(PLACED, mirror, signs, verdict, Timing(), AT, freed=freed)


def beat(claim: int) -> Signs:
    table = ModuleTable(())
    heartbeat = Heartbeat("0" * 16, "b", "1" * 32, 99, Flags.NONE, 0.0, claim, table.digest())
    return Signs(heartbeat=heartbeat, heartbeat_at=AT - 0.1, table=table, table_digest=table.digest())


def test_the_end_of_the_claim_is_proof_enough_by_default() -> None:
    assert isinstance(judged(picture(EndProof.CLAIM)), Proof)


def test_where_the_policy_asks_for_a_fence_the_end_of_the_claim_is_not_enough() -> None:
    wait = judged(picture())
    assert isinstance(wait, Wait)
    assert wait.unfenced


def test_a_proven_fence_is_proof_for_its_incarnation_and_for_no_later_one() -> None:
    assert isinstance(judged(picture(fence=fence(FenceState.PROVEN))), Proof)
    assert isinstance(judged(picture(fence=fence(FenceState.PROVEN, CLAIM - 1))), Wait)


@pytest.mark.parametrize("state", [FenceState.TRYING, FenceState.FAILED])
def test_a_fence_that_is_tried_or_failed_proves_nothing(state: FenceState) -> None:
    assert isinstance(judged(picture(fence=fence(state))), Wait)


def test_a_fence_proves_nothing_while_the_claim_may_stand() -> None:
    renewed = replace(ENDED, observed_at=AT - 1.0)
    wait = judged(picture(fence=fence(FenceState.PROVEN), claims=Map({"b": renewed})))
    assert isinstance(wait, Wait)
    assert not wait.unfenced


def test_a_run_lock_that_was_taken_is_proof_for_its_workload() -> None:
    assert isinstance(judged(picture(), freed=True), Proof)


def test_a_host_that_came_back_and_has_nothing_of_it_needs_no_fence() -> None:
    assert isinstance(judged(picture(), beat(CLAIM + 5), rec.Verdict.ALIVE), Proof)
    assert isinstance(judged(picture(), beat(CLAIM), rec.Verdict.ALIVE), Wait)


MONDAY, TUESDAY = boot_id("box", "monday"), boot_id("box", "tuesday")
HELD = replace(PLACED, boot_id=MONDAY, heartbeats=50)


def spoken(boot: str, *, claim: int = 0, sequence: int = 99) -> Signs:
    signs = beat(claim)
    assert signs.heartbeat is not None
    return replaced(signs, heartbeat=replace(signs.heartbeat, boot_id=boot, sequence=sequence))


def waits(signs: Signs, mirror: Mirror | None = None) -> Wait | None:
    found = proof_of_end(HELD, mirror or picture(), signs, rec.Verdict.ALIVE, Timing(), AT)
    return found if isinstance(found, Wait) else None


def test_the_same_machine_begun_anew_needs_no_claim_to_say_that_it_has_nothing_left() -> None:
    assert waits(spoken(TUESDAY)) is None
    assert waits(spoken(MONDAY)) is not None


def test_what_a_machine_said_before_it_held_the_claim_is_no_word_of_one_that_began_anew() -> None:
    assert waits(spoken(TUESDAY, sequence=50)) is not None


def test_another_machine_under_the_same_name_proves_nothing_and_a_person_is_told_the_command() -> None:
    for claim in (0, CLAIM + 5):
        wait = waits(spoken(boot_id("crate", "tuesday"), claim=claim))
        assert wait is not None
        assert wait.by_hand
        assert "outlive confirm-dead b" in wait.reason


def test_a_device_that_was_asked_about_another_machine_proves_nothing_and_a_persons_word_does() -> None:
    device = replace(fence(FenceState.PROVEN, CLAIM + 5), boot_id=boot_id("crate", "tuesday"))
    assert waits(SILENT, picture(fence=device)) is not None
    assert waits(SILENT, picture(fence=replace(device, boot_id=TUESDAY))) is None
    assert waits(SILENT, picture(fence=replace(device, method=BY_HAND))) is None


def test_a_device_that_was_asked_about_nobody_knows_which_machine_proves_its_own_incarnation_and_no_earlier_one() -> (
    None
):
    its_own, later = fence(FenceState.PROVEN), fence(FenceState.PROVEN, CLAIM + 5)
    assert waits(SILENT, picture(fence=its_own)) is None
    doubt = waits(SILENT, picture(fence=later))
    assert doubt is not None
    assert doubt.by_hand
    assert isinstance(judged(picture(fence=later)), Proof)


def test_who_held_the_claim_that_a_device_was_asked_about_is_known_by_the_claim_where_the_record_does_not_say() -> None:
    claim = ClaimSeen(CLAIM + 5, False, AT - 60.0, 9, rec.ClaimRecord("b", TUESDAY, "r", 1, 1), AT - 60.0)
    assert waits(SILENT, picture(fence=fence(FenceState.PROVEN, CLAIM + 5), claims=Map({"b": claim}))) is None


@pytest.mark.parametrize("known_by", ["placement", "fence"])
def test_another_machine_is_known_after_its_claim_came_and_went_unseen(known_by: str) -> None:
    crate = boot_id("crate", "tuesday")
    db = rec.PlacementRecord("db", 4, "b", CLAIM + 5, boot_id=crate)
    tried = replace(fence(FenceState.TRYING, CLAIM + 5), boot_id=crate)
    unseen = picture(claims=Map(), began_at=0.0)
    if known_by == "placement":
        placements = Map({"web": Entry(HELD, 8, 8), "db": Entry(db, 9, 9)})
        unseen = replace(unseen, placements=placements, there=Map({"b": frozenset({"web", "db"})}))
    else:
        unseen = replace(unseen, fences=Map({"b": Entry(tried, 45, 45)}))
    wait = waits(SILENT, unseen)
    assert wait is not None
    assert wait.by_hand


OLD_START, OLD_OTHER = "1f0c8a2b6d3e4f50a1b2c3d4e5f60718", "9ab1c2d3e4f54a6b8c7d8e9fa0b1c2d3"
"""Boot ids as hosts of the version before give them: the kernel's."""


@pytest.mark.parametrize("now", [OLD_OTHER, TUESDAY])
def test_a_host_of_the_version_before_that_comes_back_is_not_taken_for_another_machine(now: str) -> None:
    held, signs = replace(HELD, boot_id=OLD_START), spoken(now, claim=CLAIM + 5)
    assert isinstance(proof_of_end(held, picture(), signs, rec.Verdict.ALIVE, Timing(), AT), Proof)


@pytest.mark.parametrize("before", [OLD_START, boot_id("crate", "monday")])
def test_one_incarnation_is_one_machine_whatever_its_agents_call_it(before: str) -> None:
    held, signs = replace(HELD, boot_id=before), replaced(spoken(TUESDAY, claim=CLAIM), heartbeat_at=AT - 60.0)
    wait = proof_of_end(held, picture(), signs, rec.Verdict.DEAD, Timing(), AT)
    assert isinstance(wait, Wait)
    assert not wait.by_hand
    device = replace(fence(FenceState.PROVEN), boot_id=TUESDAY)
    assert isinstance(proof_of_end(held, picture(fence=device), signs, rec.Verdict.DEAD, Timing(), AT), Proof)


def test_a_persons_word_is_taken_for_the_machine_before_while_another_lives_under_its_name() -> None:
    record = rec.ClaimRecord("b", boot_id("crate", "tuesday"), "r2", 1, 1)
    mirror = picture(
        placements=Map({"web": Entry(HELD, 8, 8)}),
        claims=Map({"b": ClaimSeen(CLAIM + 5, True, AT, 44, record, AT - 60.0)}),
        verdicts=Map({"b": Entry(rec.VerdictRecord("b", rec.Verdict.ALIVE), 5, 40)}),
    )
    signs = spoken(boot_id("crate", "tuesday"), claim=CLAIM + 5)
    assert refusal(mirror, "b", signs, Timing(), AT) == ""
    assert word(mirror, "b", signs) == Word(("web",), CLAIM, before=True)
    written = confirmed(mirror, "b", signs, "ann on a", "event")
    assert same_incarnation("claims/b", CLAIM + 5) in written.compares
    (put,) = written.writes
    assert isinstance(put, Put)
    stands = rec.decode(put.key, put.value)
    assert isinstance(stands, rec.FenceRecord)
    assert stands.claim == CLAIM


def test_a_persons_word_is_taken_for_a_host_that_only_a_lost_placement_waits_for() -> None:
    report = rec.ReportRecord("web", 3, "b", CLAIM, rec.Stage.RUNNING)
    lost = picture(
        placements=Map(),
        there=Map(),
        workloads=Map({"web": Entry(rec.WorkloadRecord(service("web")), 3, 3)}),
        reports=Map({"web": Entry(report, 9, 9)}),
    )
    assert refusal(lost, "b", SILENT, Timing(), AT) == ""
    assert word(lost, "b", SILENT).workloads == ("web",)
    never_seen = replace(lost, claims=Map())
    (put,) = confirmed(never_seen, "b", SILENT, "ann on a", "event").writes
    assert isinstance(put, Put)
    assert isinstance(rec.decode(put.key, put.value), rec.FenceRecord)


def test_policies_that_nobody_can_read_may_have_asked_for_a_fence() -> None:
    unread = picture(policies=Entry(Policies(), 0, 0), bad=Map({rec.POLICIES: (3, "nonsense")}))
    assert isinstance(judged(unread), Wait)


def test_who_waits_is_told_the_command_once_no_method_has_helped() -> None:
    wait = judged(picture(fence=fence(FenceState.FAILED)))
    assert isinstance(wait, Wait)
    assert "connection refused" in wait.reason
    assert "outlive confirm-dead b" in wait.reason


def test_a_persons_word_is_taken_for_a_silent_host_that_something_waits_for() -> None:
    assert refusal(picture(), "b", SILENT, Timing(), AT) == ""


def test_a_persons_word_is_refused_while_anything_tells_of_life() -> None:
    timing, dead = Timing(), picture()
    held = picture(claims=Map({"b": replace(ENDED, present=True)}))
    doubted = picture(verdicts=Map({"b": Entry(rec.VerdictRecord("b", rec.Verdict.PARTITIONED), 5, 40)}))
    slot = Signs(slot=beat(CLAIM).heartbeat, slot_at=AT - 2.0)
    assert "claim" in refusal(held, "b", SILENT, timing, AT)
    assert "heard" in refusal(dead, "b", beat(CLAIM), timing, AT)
    assert "heard" in refusal(dead, "b", slot, timing, AT)
    assert "partitioned" in refusal(doubted, "b", SILENT, timing, AT)
    assert "nothing waits" in refusal(picture(placements=Map(), there=Map()), "b", SILENT, timing, AT)


def test_a_persons_word_is_for_the_accused_incarnation_and_falls_if_the_host_comes_back_meanwhile() -> None:
    written = confirmed(picture(), "b", SILENT, "ann on a", "event")
    assert absent("claims/b") in written.compares
    (put,) = written.writes
    assert isinstance(put, Put)
    record = rec.decode(put.key, put.value)
    assert record == rec.FenceRecord("b", CLAIM, FenceState.PROVEN, BY_HAND, "ann on a", "", "event")
