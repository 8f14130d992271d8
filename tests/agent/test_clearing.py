"""What is insisted on is done again until it succeeds, and told now and then; mistakes of ours are not hidden."""

import pytest
from structlog.testing import capture_logs

from outlive.agent import clearing
from outlive.agent.clearing import insisting
from outlive.errors import Failed


class Stubborn:
    """Fails so often, then succeeds."""

    def __init__(self, fails: int, error: Exception) -> None:
        self.fails = fails
        self.error = error
        self.tries = 0

    async def act(self) -> None:
        self.tries += 1
        if self.tries <= self.fails:
            raise self.error


async def test_it_is_tried_until_it_succeeds_and_told_at_first_and_then_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clearing, "RETRY_S", 0.0)
    monkeypatch.setattr(clearing, "TOLD_EVERY", 4)
    stubborn = Stubborn(3, Failed("Busy."))
    with capture_logs() as told:
        await insisting("cgroup.not_removed", "web", stubborn.act)
    assert stubborn.tries == 4
    assert [(each["event"], each["workload"], each["tries"]) for each in told] == [("cgroup.not_removed", "web", 1)]


async def test_what_succeeds_at_once_is_not_spoken_of() -> None:
    with capture_logs() as told:
        await insisting("cgroup.not_removed", "web", Stubborn(0, Failed("Busy.")).act)
    assert told == []


async def test_a_mistake_of_ours_is_not_repeated() -> None:
    stubborn = Stubborn(1, KeyError("web"))
    with pytest.raises(KeyError):
        await insisting("cgroup.not_removed", "web", stubborn.act)
    assert stubborn.tries == 1
