"""A dry run is answered by the leader alone; where none answers, that is said at once, and when to ask again."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.requests import Request

from outlive.api.deciding import NoLeader, commands_for
from outlive.api.problems import on_outlive_error
from outlive.api.view import View
from outlive.cluster import records as rec
from outlive.cluster.mirror import Entry, Mirror
from outlive.errors import ClusterUnreachable


async def refused(leader: str | None) -> ClusterUnreachable:
    async def ask_peer(host: str, *_: Any, **__: Any) -> None:
        raise ClusterUnreachable(f"The agent of {host} cannot be asked.")

    entry = Entry(rec.LeaderRecord(leader), 1, 1) if leader else None
    view = SimpleNamespace(host="a", mirror=replace(Mirror(), leader=entry), ask_peer=ask_peer)
    with pytest.raises(ClusterUnreachable) as caught:
        await commands_for(cast(View, view), "workloads/x", None)
    return caught.value


async def test_without_a_leader_nobody_knows() -> None:
    assert isinstance(await refused(None), NoLeader)


async def test_a_leader_that_is_gone_is_told_with_when_to_ask_again() -> None:
    error = await refused("b")
    assert "agent of b" in error.sentence
    answer = await on_outlive_error(Request({"type": "http"}), error)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
