"""What holds for every test: hypothesis without deadlines, the lab's mark, and no skipping as root.

Fixtures that belong to one room live in that room's folder.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

# Timings never fail a test: a loaded machine is slow, not wrong. In CI the same examples come each
# time; elsewhere new ones are drawn, and hypothesis prints how to repeat a failure.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("here"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

# The size of the terminal that the tests are started from, or that readline makes up, is not theirs.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)

LAB = Path(__file__).parent / "lab"


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """What a test, or what it runs, sets up for logs is not the next one's."""
    before = structlog.get_config()
    yield
    if structlog.get_config() != before:
        structlog.configure(**before)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Keep the folders of tests that run beside each other short: sockets live there, whose paths may not be long."""
    worker = getattr(config, "workerinput", {}).get("workerid", "")
    if worker:
        config.option.basetemp = str(Path(config.option.basetemp).with_name(worker.removeprefix("gw")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all that lives in tests/lab, so that nobody forgets to."""
    for item in items:
        if item.path.is_relative_to(LAB):
            item.add_marker(pytest.mark.lab)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let a skipped test count as a failure where nothing is missing: as root."""
    if os.geteuid() == 0 and _skipped(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say why a run without failures failed."""
    if os.geteuid() == 0 and _skipped(config):
        terminalreporter.write_line("Skipped tests count as failed: root can run them all.", red=True)


def _skipped(config: pytest.Config) -> bool:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return bool(reporter and reporter.stats.get("skipped"))
