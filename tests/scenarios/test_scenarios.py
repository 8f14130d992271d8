"""Every scenario gives the timeline that was read and found right.

After a change of decisions: look at what `outlive simulate --scenario FILE` shows, and if it is right keep it with
`--accept`.
"""

from pathlib import Path

import pytest

from outlive.sim import scenario

SCRIPTS = sorted(Path(__file__).parent.glob("*.scenario"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_scenario_goes_as_expected(script: Path) -> None:
    result = scenario.run(scenario.read(script.read_text(), script.name))
    assert scenario.timeline(result) == scenario.expected_beside(script).read_text()
    assert result.violation is None


def test_every_row_of_the_verdict_table_has_a_scenario() -> None:
    for verdict in ("alive", "suspect", "isolated", "partitioned", "dead"):
        expected = Path(__file__).parent / f"verdict-{verdict}.expected"
        assert verdict == "alive" or f"verdict.{verdict} " in expected.read_text()
