"""`outlive events --follow` goes on at any agent, and says when some of what happened is not kept any more."""

from collections.abc import Callable
from itertools import islice

import pytest

from outlive.cli import events
from outlive.cli.events import followed
from outlive.client import Client
from outlive.errors import ClusterUnreachable

from .pretended_agent import Answer, Asked, Pieces, pretended


def told(number: int) -> bytes:
    return f'id: {number}:events/x\nevent: e\ndata: {{"number": {number}}}\n\n'.encode()


def numbers(client: Client, count: int) -> list[int]:
    return [each["number"] for each in islice(followed(client, 10), count)]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "AGAIN_S", 0.01)


def says(*pieces: bytes) -> Callable[[Asked], Answer]:
    return lambda _: (200, Pieces(pieces))


def test_a_stream_that_breaks_off_goes_on_at_another_agent() -> None:
    with pretended(says(told(3), told(4))) as second:
        with pretended(says(told(1), told(2))) as first:
            client = Client(first.socket, [first.socket, second.socket])
            following = followed(client, 10)
            assert [next(following)["number"] for _ in range(2)] == [1, 2]
        assert [next(following)["number"] for _ in range(2)] == [3, 4]
        assert client.path == second.socket


def test_an_agent_whose_store_is_away_is_left_for_another() -> None:
    with pretended(says(told(1), b": the store does not answer\n\n")) as first, pretended(says(told(2))) as second:
        assert numbers(Client(first.socket, [second.socket]), 2) == [1, 2]


def test_what_is_gone_is_told_and_the_rest_follows(capsys: pytest.CaptureFixture[str]) -> None:
    gone = {"id": "events.gone", "title": "Some are gone.", "exit_code": 1, "oldest": "7:events/y"}
    answers = iter([(200, Pieces((told(1),))), (410, gone), (200, Pieces((told(8),)))])
    with pretended(lambda _: next(answers)) as agent:
        assert numbers(Client(agent.socket), 2) == [1, 8]
    assert "Some are gone. What is kept follows." in capsys.readouterr().err


def test_nobody_there_is_told_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST_TRIES", 2)
    with pytest.raises(ClusterUnreachable):
        numbers(Client("/nowhere/api.sock"), 1)
