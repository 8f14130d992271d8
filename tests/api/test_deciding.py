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


class Said:
    """An answer of the leader's."""

    def __init__(self, status: int, content: bytes) -> None:
        self.status, self.content = status, content
        self.headers: dict[str, str] = {}

    async def whole(self, most_bytes: int, within_s: float) -> bytes:
        return self.content

    def close(self) -> None:
        """Nothing to let go of."""


async def refused(leader: str | None, said: Said | None = None) -> ClusterUnreachable:
    async def ask_peer(host: str, *_: Any, **__: Any) -> Said:
        if said is None:
            raise ClusterUnreachable(f"The agent of {host} cannot be asked.")
        return said

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


@pytest.mark.parametrize("status", [200, 503])
@pytest.mark.parametrize("content", [b"", b"<html>", b'{"\xff":1}', b"[" * 100_000, b"[]", b'{"commands":7}'])
async def test_a_leader_that_answers_what_nobody_understands_is_told_as_one_that_does_not_answer(
    status: int, content: bytes
) -> None:
    said = Said(status, content)
    if (status, content) == (503, b'{"commands":7}'):
        said.content = b"7"  # an object that says nothing is a problem without words
    assert "cannot be understood" in (await refused("b", said)).sentence
