"""Sums that are kept from one picture to the next are those that would be made from all of it."""

from hypothesis import given
from hypothesis import strategies as st

from outlive.cluster import records as rec
from outlive.cluster.host import Capacity
from outlive.cluster.mirror import Mirror, changed
from outlive.cluster.placement import UNUSED, usage
from outlive.cluster.tally import moved, tally
from outlive.cluster.transaction import Delete, KeyValue
from outlive.cluster.upcoming import upcoming
from outlive.cluster.workload import Module, Workload

NAMES, HOSTS = tuple("vwxyz"), tuple("abc")
names, hosts = st.sampled_from(NAMES), st.sampled_from(HOSTS)
maybe = st.one_of(st.none(), hosts)
# Sums of these depend on their order.
cpus = st.sampled_from((0.1, 0.2, 0.3, 0.7))


@st.composite
def changes(draw: st.DrawFn) -> tuple[str, rec.Record | None]:
    name, room = draw(names), draw(st.sampled_from((rec.WORKLOADS, rec.PLACEMENTS, rec.REPORTS)))
    if draw(st.integers(0, 4)) == 0:
        return room + name, None
    if room == rec.WORKLOADS:
        file = Workload(name, (Module("m", ("/bin/true",)),), resources=Capacity(draw(cpus), 1))
        return room + name, rec.WorkloadRecord(file, draw(st.sampled_from(rec.Desired)))
    if room == rec.REPORTS:
        return room + name, rec.ReportRecord(name, 1, draw(hosts), 1, draw(st.sampled_from(rec.Stage)))
    order = draw(st.sampled_from(rec.Order))
    host, standby, moving, following = draw(maybe), draw(maybe), draw(maybe), draw(maybe)
    return room + name, rec.PlacementRecord(
        name, 1, host, order=order, standby=standby, moving_to=moving, next_host=following
    )


written = st.dictionaries(names, hosts, max_size=3)


@given(st.lists(st.lists(changes(), min_size=1, max_size=4), max_size=8), written, written)
def test_sums_follow_every_change_to_the_last_bit(
    batches: list[list[tuple[str, rec.Record | None]]], meant: dict[str, str], followed: dict[str, str]
) -> None:
    mirror, sums = Mirror(), tally(Mirror())
    for revision, batch in enumerate(batches, start=1):
        new = changed(
            mirror,
            revision,
            [Delete(key) if each is None else KeyValue(key, rec.encode(each), 1, revision) for key, each in batch],
            0.0,
        )
        sums, mirror = moved(sums, new, {rec.name_in(key) for key, _ in batch}), new
        assert sums.is_of(mirror)
        whole = tally(mirror)
        assert (sums.used, sums.there, sums.starting) == (whole.used, whole.there, whole.starting)
        assert (sums.homeless, sums.unfollowed) == (whole.homeless, whole.unfollowed)
        assert dict(sums.used) == usage(mirror)
        assert dict(sums.starting) == upcoming(mirror, {})
        expected, found = usage(mirror, meant, followed), sums.used_with(meant, followed)
        assert {host: found.get(host, UNUSED) for host in HOSTS} == {host: expected.get(host, UNUSED) for host in HOSTS}
        begun, counted = upcoming(mirror, meant), sums.starting_with(meant)
        assert {host: counted.get(host, 0) for host in HOSTS} == {host: begun.get(host, 0) for host in HOSTS}
