"""The rule of proofs by fences judges what the records say, and takes none of them at its word."""

from dataclasses import replace
from random import Random

from outlive.cluster import records as rec
from outlive.cluster.boot import boot_id
from outlive.cluster.fence import EndProof, FenceState
from outlive.cluster.policies import Policies
from outlive.cluster.transaction import KeyValue
from outlive.sim.chance import draw
from outlive.sim.checkers import PlacedOnProof
from outlive.sim.world import World


def said_of(later: str) -> str | None:
    """What the rule says when `later` held the newer claim that a device was asked about, and no record names it."""
    random = Random(0)
    setup, _ = draw(random)
    parts = World(replace(setup, policies=Policies(proof_of_end=EndProof.FENCE)), (), random, checkers=()).parts
    rule, (host, other, *_) = PlacedOnProof(parts), sorted(parts.hosts)
    parts.fencing.proven.add((host, 20))
    said = None
    for revision, key, record in (
        (7, rec.CLAIMS + host, rec.ClaimRecord(host, boot_id("box", "monday"), "r", 1, 1)),
        (8, rec.PLACEMENTS + "web", rec.PlacementRecord("web", 3, host, 7)),
        (20, rec.CLAIMS + host, rec.ClaimRecord(host, later, "r", 2, 1)),
        (21, rec.FENCES + host, rec.FenceRecord(host, 20, FenceState.PROVEN, "power", other)),
        (22, rec.PLACEMENTS + "web", rec.PlacementRecord("web", 4, other, 9)),
    ):
        parts.store.data[key] = KeyValue(key, rec.encode(record), revision, revision)
        said = rule.changed(other, (parts.store.data[key],))
    return said


def test_a_device_s_word_on_another_machine_is_no_proof_though_no_record_names_it() -> None:
    assert "nothing proves" in (said_of(boot_id("crate", "tuesday")) or "")
    assert said_of(boot_id("box", "tuesday")) is None
