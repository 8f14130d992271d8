"""How a command shows its result: data to stdout, everything else to stderr, and `--json`.

With `--json` the last line on stdout is one object, the result or a problem; whatever a command
tells on its way goes to stderr. Colour and width are rich's business, which honours NO_COLOR; it is
imported only when something is to be drawn, and so is msgspec.
"""

import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

    from outlive.errors import OutliveError

PIPE_COLUMNS = 1000

Function = TypeVar("Function", bound=Callable[..., Any])


def json_option(function: Function) -> Function:
    """Give a command the option `--json`, as the argument `as_json`."""
    option = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object, last.")
    return option(function)


def wants_json(argv: list[str]) -> bool:
    """Tell whether `--json` was asked for, also of a line that does not parse; a `--` ends our own words."""
    ours = argv[: argv.index("--")] if "--" in argv else argv
    return "--json" in ours


def print_json(result: Mapping[str, object]) -> None:
    """Print one object on one line of stdout; dataclasses, enums and datetimes are taken as they are."""
    import msgspec

    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    sys.stdout.flush()


def stdout_console() -> "Console":
    """Return a console for the result itself; whoever reads it by a pipe gets each row on one line."""
    from rich.console import Console

    wide = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(highlight=False, width=PIPE_COLUMNS if wide else None)


def stderr_console() -> "Console":
    """Return a console for progress, questions and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def may_colour(stream: TextIO) -> bool:
    """Tell whether a stream is a terminal whose user did not refuse colour."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def show_error(error: "OutliveError") -> None:
    """Tell an error on stderr: the sentence, why, and what to do."""
    lines = [f"\x1b[1;31m{error.sentence}\x1b[0m" if may_colour(sys.stderr) else error.sentence]
    if error.cause:
        lines.append(f"  Why: {error.cause}")
    if error.remedy:
        lines.append(f"  Do:  {error.remedy}")
    sys.stderr.write("\n".join(lines) + "\n")
