"""The edge: the group that every command hangs on, and the one place where errors are shown.

`run` turns whatever a command ends with into an exit code: 0 done, 1 failed, 2 usage, 3 refused for
safety, 4 cluster unreachable, 5 degraded, 130 interrupted. A person reads the sentence, why, and what
to do; with `--json` a program reads the same as a problem object on the last line of stdout.
"""

import os
import sys

import click

from outlive import __version__
from outlive.cli.output import print_json, show_error, wants_json
from outlive.cli.table import LazyGroup
from outlive.errors import Failed, OutliveError, UsageInvalid

INTERRUPTED = 130


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, "-V", "--version", message="outlive %(version)s")
@click.pass_context
def outlive(ctx: click.Context) -> None:
    """Outlive keeps Linux workloads running when the machine under them dies."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def run(argv: list[str]) -> int:
    """Run one command line and return its exit code; whatever went wrong has been shown.

    argv: the words after the program's name.
    """
    try:
        result = outlive.main(args=argv, prog_name="outlive", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except (KeyboardInterrupt, click.Abort):
        sys.stderr.write("Interrupted.\n")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone, as `head` does; click ends its own help with the same code.
        # Python must not stumble over it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Failed.exit_code
    except Exception as exception:
        error = as_outlive_error(exception)
        show_error(error)
        if wants_json(argv):
            print_json(error.problem())
        return error.exit_code


def as_outlive_error(exception: Exception) -> OutliveError:
    """Return the error to tell a person for an exception that reached the edge.

    An exception that nobody foresaw is a mistake of ours: its traceback is printed, so that it can be
    reported, and it becomes a plain failure with the id `internal`.
    """
    if isinstance(exception, OutliveError):
        return exception
    if isinstance(exception, click.UsageError):
        path = exception.ctx.command_path if exception.ctx else "outlive"
        return UsageInvalid(exception.format_message(), remedy=f"see {path} --help")
    if isinstance(exception, click.ClickException):
        return Failed(exception.format_message())
    if isinstance(exception, ExceptionGroup) and (told := exception.subgroup(OutliveError)):
        return _first(told)
    import traceback

    traceback.print_exception(exception)
    return Failed(
        f"Outlive made a mistake of its own: {type(exception).__name__}.",
        cause=str(exception),
        remedy="report it, with the traceback above",
        id="internal",
    )


def _first(group: ExceptionGroup[OutliveError]) -> OutliveError:
    """Return the first error of a task group; its siblings were mostly cancelled by it."""
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, ExceptionGroup) else inner
