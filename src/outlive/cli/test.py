"""`outlive test`: all of the project's checks, one after the other, each with its time.

Only a checkout can be tested. Every step is a process of its own with a time limit, and a failed one
does not keep the others from telling what they know. The last line has pytest's form, with a failed
step that is not pytest's counted as an error.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree import ElementTree

import click

import outlive
from outlive.cli.output import json_option, print_json
from outlive.errors import UsageInvalid
from outlive.native import outlive_command

QUICK = "not lab and not soak"
LAB = "lab and not soak"
SOAK = "soak"

# Tests that make no hosts run beside each other, in processes that take work from each other; one more than there are
# processors, since many of them wait. It takes seconds to begin with, so a selection goes without.
WORKERS = ("-n", str(min(4, 1 + len(os.sched_getaffinity(0)))), "--dist", "worksteal")

# How long an interrupted step may clean up after itself: the lab takes its hosts down.
CLEANUP_S = 60.0

MOST_FUZZ_S, FUZZ_LIMIT_S = 86_400.0, 14 * 86_400.0


@dataclass(frozen=True, slots=True)
class Step:
    """One check: commands run in turn until one fails. pytest's own talk, so they are not silenced."""

    name: str
    commands: Sequence[Sequence[str]]
    limit_s: float
    talks: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Counts:
    """How tests ended. A step that is not pytest's counts as one error when it fails."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    errors: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.passed + other.passed,
            self.failed + other.failed,
            self.skipped + other.skipped,
            self.errors + other.errors,
        )

    def line(self, took_s: float) -> str:
        """Return pytest's last line for these counts."""
        parts = [(self.failed, "failed"), (self.passed, "passed"), (self.skipped, "skipped")]
        parts.append((self.errors, "error" if self.errors == 1 else "errors"))
        told = ", ".join(f"{count} {word}" for count, word in parts if count) or "no tests ran"
        return f"{told} in {took_s:.2f}s"


@dataclass(frozen=True, slots=True)
class Result:
    """How one step ended, in seconds and counts; `holds` is false also where nothing was tested."""

    step: str
    holds: bool
    took_s: float
    counts: Counts


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--quick", is_flag=True, help="Leave out the lab: no real hosts, no root needed.")
@click.option("--soak", is_flag=True, help="Run the long tests, and only those.")
@click.option(
    "--fuzz",
    "fuzz_s",
    type=click.FloatRange(1, MOST_FUZZ_S),
    metavar="SECONDS",
    help="Search for so long with each fuzz target, or with those named (docs/fuzzing.md).",
)
@json_option
@click.argument("selection", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(
    ctx: click.Context, quick: bool, soak: bool, fuzz_s: float | None, as_json: bool, selection: tuple[str, ...]
) -> None:
    """Run all of the project's checks and tests.

    SELECTION, paths or any options of pytest (-k WORDS, -x), runs those tests alone:

    \b
      outlive test
      outlive test --quick
      outlive test tests/cluster -k partition
      outlive test --fuzz 60 store-record
    """
    checkout = find_checkout()
    if fuzz_s is not None:
        steps = fuzz_steps(checkout, fuzz_s, selection)
    elif selection:
        steps = [pytest_step("tests", "soak" if soak else QUICK if quick else "not soak", *selection)]
    elif soak:
        steps = [pytest_step("soak", SOAK)]
    elif quick:
        steps = all_steps(checkout)
    elif os.geteuid() != 0:
        raise UsageInvalid(
            "The lab's tests make network namespaces, which only root may.",
            remedy="run sudo ./outlive test, or ./outlive test --quick to leave the lab out",
            id="test.needs-root",
        )
    else:
        steps = [*all_steps(checkout), pytest_step("lab", LAB)]

    began = time.monotonic()
    with terminated_like_interrupted():
        results = [Runner(checkout, as_json).run(step) for step in steps]
    took_s = time.monotonic() - began
    counts = sum((result.counts for result in results), Counts())
    holds = all(result.holds for result in results)
    click.echo(f"== {counts.line(took_s)} ==", err=as_json)
    if as_json:
        print_json({"holds": holds, "took_s": round(took_s, 2), "counts": counts, "steps": results})
    ctx.exit(0 if holds else 1)


def find_checkout() -> Path:
    """Return the root of the checkout that this package is run from.

    Raises UsageInvalid (id `test.no-checkout`) for an installed copy, which has no tests.
    """
    root = Path(outlive.__file__).resolve().parents[2]
    if (root / "tests").is_dir() and (root / "pyproject.toml").is_file():
        return root
    raise UsageInvalid(
        "Only a checkout of Outlive can be tested; this is an installed copy.",
        cause=f"there are no tests in {root}",
        remedy="clone the repository and run ./outlive test there",
        id="test.no-checkout",
    )


def all_steps(checkout: Path) -> list[Step]:
    """Return every step but the lab, cheapest first."""
    ruff = [sys.executable, "-m", "ruff"]
    scripts = Path(sys.executable).parent
    strict = checkout / ".setup" / "strict"
    meson = [str(scripts / "meson")]
    fresh = ["--wipe"] if strict.exists() else []
    setup = [*meson, "setup", *fresh, "-Dwerror=true", "-Db_sanitize=address,undefined", str(strict)]
    sanitized = {"OUTLIVE_NATIVE_DIR": str(strict / "native"), "UBSAN_OPTIONS": "halt_on_error=1"}
    return [
        Step("lint", [[*ruff, "check"], [*ruff, "format", "--check"]], 120),
        Step("types", [[sys.executable, "-m", "mypy"]], 900),
        Step("import contracts", [[str(scripts / "lint-imports"), "--no-logo"]], 120),
        Step("native programs, warnings as errors", [setup, [*meson, "compile", "-C", str(strict)]], 300),
        pytest_step("tests", QUICK, *WORKERS),
        replace(pytest_step("native programs under sanitizers", QUICK, "tests/native"), environment=sanitized),
        Step("simulator sample", [outlive_command("simulate", "--seeds", "100", "--hosts", "5", "--json")], 900),
    ]


def fuzz_steps(checkout: Path, seconds: float, targets: Sequence[str]) -> list[Step]:
    """Return the steps that install the fuzzer, which nobody else needs, and search."""
    uv = os.environ.get("OUTLIVE_UV") or str(checkout / ".setup" / "tools" / "bin" / "uv")
    wanted = [uv, "sync", "--frozen", "--no-progress", "--no-install-project", "--inexact", "--group", "fuzz"]
    search = [sys.executable, "-m", "tests.fuzz", str(seconds), *targets]
    return [
        Step("fuzzer", [wanted], 600, environment={"UV_PROJECT_ENVIRONMENT": sys.prefix, "VIRTUAL_ENV": ""}),
        Step("fuzzing", [search], FUZZ_LIMIT_S, talks=True),
    ]


def pytest_step(name: str, marks: str, *selection: str) -> Step:
    """Return the step that runs pytest over the tests with these marks."""
    return Step(name, [[sys.executable, "-m", "pytest", "-m", marks, *selection]], 3600, talks=True)


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs steps in a checkout; `as_json` keeps stdout free for the result."""

    checkout: Path
    as_json: bool

    def run(self, step: Step) -> Result:
        """Run one step to its end or its limit, and tell how it went."""
        _say(f"== {step.name}")
        report = self.checkout / ".setup" / "tests.xml"
        report.parent.mkdir(exist_ok=True)
        report.unlink(missing_ok=True)
        began = time.monotonic()
        extra = [f"--junitxml={report}"] if step.talks else []
        holds = all(self._succeeds([*words, *extra], step, began + step.limit_s) for words in step.commands)
        took_s = round(time.monotonic() - began, 2)
        counts = read_counts(report) if report.exists() else Counts()
        if not holds and not counts.failed and not counts.errors:
            counts += Counts(errors=1)
        _say(f"   {step.name}: {'ok' if holds else 'FAILED'} after {took_s:.1f} s")
        return Result(step.name, holds, took_s, counts)

    def _succeeds(self, words: Sequence[str], step: Step, deadline: float) -> bool:
        """Run one command, in a process group of its own so that it is interrupted once, by us."""
        talk = sys.stderr if self.as_json else None
        process = subprocess.Popen(
            words,
            cwd=self.checkout,
            env={**os.environ, **step.environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            stdout=talk if step.talks else subprocess.PIPE,
            stderr=talk if step.talks else subprocess.STDOUT,
            process_group=0,
            text=True,
            errors="replace",
        )
        try:
            output, _ = process.communicate(timeout=max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            output = _interrupt(process) + f"\nNot done within {step.limit_s:.0f} s, so it was ended.\n"
        except BaseException:
            _interrupt(process)
            raise
        if process.returncode != 0 and output:
            _say(output.rstrip())
        return process.returncode == 0


def _interrupt(process: subprocess.Popen[str]) -> str:
    """Interrupt a command, as Ctrl-C would, so that it cleans up; kill its group if it does not."""
    process.send_signal(signal.SIGINT)
    try:
        output, _ = process.communicate(timeout=CLEANUP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
    return output or ""


def read_counts(report: Path) -> Counts:
    """Read how many tests ended how from pytest's own XML report."""
    suite = ElementTree.parse(report).getroot().find("testsuite")  # noqa: S314 - pytest wrote it just now
    if suite is None:
        return Counts()
    number = {name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")}
    bad = number["failures"] + number["errors"] + number["skipped"]
    return Counts(number["tests"] - bad, number["failures"], number["skipped"], number["errors"])


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM, which a CI system sends, end the steps as cleanly as Ctrl-C does."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    # In a script's background SIGINT begins ignored, and children would inherit that.
    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, interrupt),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    """Print progress, between lines of pytest's that go to another stream."""
    sys.stdout.flush()
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
