"""The keys of a module in a workload file: its program, and how it is checked, limited, restored and stopped.

Each key is told here once, for the reader, the JSON Schema and the reference in docs/workload-file.md. Defaults are
those of the nouns in `outlive.cluster.workload`. The rest of the file is in `workload_shape`.
"""

import re
import shlex
import warnings

from outlive.cluster.workload import Check, CheckKind, Limits, Module, Readiness, RestorePolicy

from .problems import shown
from .shapes import Choice, Number, Text, Wrong
from .tables import Key, ListOf, Table, TableOf, key_of
from .texts import ADDRESS_TO_ASK, name_of

MOST_MODULES = 64
MOST_CHECKS = 16
MOST_WORDS = 1024
MOST_CPUS = 65_536
MOST_MEMORY_MIB = 1 << 30
MOST_PROCESSES = 4_194_304
MOST_OPEN_FILES = 1_073_741_816
HOUR_S = 3600.0
DAY_S = 86_400.0

SIGNALS = ("TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "WINCH", "KILL")


def _program(text: str) -> str:
    if "/" in text and not text.startswith(("/", "{data}", "{package}")):
        raise Wrong("is a relative path", "Write the program's absolute path, or its bare name to find it on PATH.")
    return text


def as_words(text: str) -> str:
    try:
        words = shlex.split(text) if len(text) <= 200 else []
    except ValueError:
        words = []
    if not words:
        return 'Write a list of words: ["/usr/bin/program", "argument"].'
    return f"No shell reads it: write [{', '.join(shown(word) for word in words)}]."


def _regular_expression(text: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(text)
    except re.error as error:
        where = "" if error.pos is None else f" at character {error.pos + 1}"
        raise Wrong(
            f"is no regular expression ({error.msg}{where})", "Write a \\ before a sign that is meant as it is."
        ) from None
    except (OverflowError, RecursionError) as error:
        raise Wrong("is too large a regular expression", "Write a simpler one.") from error
    return text


WORD = Text()
PROGRAM = Text("the name or absolute path of a program", r"[^\x00]+", "Name a program.", least=1, made=_program)
COMMAND = ListOf(WORD, "words", least=1, most=MOST_WORDS, first=PROGRAM, fix="Name a program.", from_text=as_words)
FOLDER = Text(
    "the absolute path of a folder",
    r"(/|\{data\}|\{package\})[^\x00]*",
    "Write it from the root on, or begin it with {data} or {package}.",
    least=1,
    most=4000,
)
VARIABLE = Text(
    "the name of a variable",
    "[A-Za-z_][A-Za-z0-9_]*",
    "Use letters, digits and '_', no digit first.",
    least=1,
    most=255,
)
USER = Text(
    "the name or number of a user", "[A-Za-z0-9_][A-Za-z0-9_.-]*", "Write it as in /etc/passwd.", least=1, most=32
)
HTTP_PATH = Text("the path of a request", "/[!-~]*", "Begin it with / and use no spaces.", least=1, most=2000)
LINE = Text(
    "a regular expression", r"[^\x00\n]+", "Match within one line.", least=1, most=500, made=_regular_expression
)
SECONDS = Number(0, HOUR_S)
SOME_SECONDS = Number(0, HOUR_S, above=True)

_OF_SERVERS = (CheckKind.TCP, CheckKind.HTTP)

CHECK = Table(
    (
        key_of(
            Check,
            "kind",
            Choice(tuple(CheckKind), made=CheckKind),
            "How the module is asked: `command` runs a program, "
            "which must exit with 0; `tcp` opens a connection; `http` asks for a page.",
            required=True,
            also=("type",),
        ),
        key_of(
            Check,
            "command",
            COMMAND,
            "The program that tells, with its arguments. It runs with the module's environment, folder and user.",
            required=True,
            only=(CheckKind.COMMAND,),
            also=("cmd", "exec"),
        ),
        key_of(Check, "address", ADDRESS_TO_ASK, "Where the module listens.", only=_OF_SERVERS, also=("host", "ip")),
        key_of(
            Check,
            "port",
            Number(1, 65_535, whole=True),
            "The port where the module listens.",
            required=True,
            only=_OF_SERVERS,
        ),
        key_of(Check, "path", HTTP_PATH, "What is asked for.", only=(CheckKind.HTTP,), also=("url", "uri")),
        key_of(
            Check, "status", Number(100, 599, whole=True), "The status of a healthy answer.", only=(CheckKind.HTTP,)
        ),
        key_of(Check, "interval_s", SOME_SECONDS, "Seconds from one try to the next.", also=("interval", "period")),
        key_of(
            Check, "timeout_s", SOME_SECONDS, "Seconds after which a try without answer has failed.", also=("timeout",)
        ),
        key_of(
            Check,
            "failures",
            Number(1, 1000, whole=True),
            "How many failed tries in a row make the module failed.",
            also=("retries", "threshold"),
        ),
        key_of(
            Check,
            "grace_s",
            Number(0, DAY_S),
            "Seconds after its start within which the module must have answered well once; until then a failed try "
            "does not count.",
            also=("grace", "initial_delay", "start_period"),
        ),
    ),
    told_by="kind",
)

READINESS = Table(
    (
        key_of(
            Readiness,
            "line",
            LINE,
            "The module counts as running once a line of its output matches this regular expression "
            "(Python's; anywhere in the line).",
            required=True,
            also=("pattern", "regex", "match"),
        ),
        key_of(
            Readiness,
            "timeout_s",
            SOME_SECONDS,
            "Seconds after which a start without such a line has failed.",
            also=("timeout",),
        ),
    )
)

RESTORE = Table(
    (
        key_of(
            RestorePolicy,
            "attempts",
            Number(0, 1000, whole=True),
            "How often the module is restored where it is, within "
            "`window_s`, before the workload goes to another host.",
            also=("retries", "max_attempts"),
        ),
        key_of(
            RestorePolicy,
            "window_s",
            Number(0, DAY_S, above=True),
            "Seconds for which an attempt counts.",
            also=("window",),
        ),
        key_of(
            RestorePolicy,
            "backoff_s",
            SECONDS,
            "Seconds to wait before the second attempt; each further one waits twice as long.",
            also=("backoff", "delay"),
        ),
        key_of(
            RestorePolicy,
            "backoff_most_s",
            SECONDS,
            "The longest wait between two attempts, in seconds.",
            also=("max_backoff",),
        ),
    )
)

LIMITS = Table(
    (
        key_of(
            Limits,
            "cpus",
            Number(0, MOST_CPUS, above=True),
            "The most processor time, in processors: 0.5 is half of one.",
            also=("cpu",),
        ),
        key_of(
            Limits,
            "memory_mib",
            Number(1, MOST_MEMORY_MIB, whole=True),
            "The most memory, in MiB; the kernel ends what takes more.",
            also=("memory", "ram", "memory_mb"),
        ),
        key_of(
            Limits,
            "processes",
            Number(1, MOST_PROCESSES, whole=True),
            "The most processes and threads.",
            also=("pids", "tasks"),
        ),
        key_of(
            Limits,
            "open_files",
            Number(1, MOST_OPEN_FILES, whole=True),
            "The most files that a process may have open.",
            also=("nofile", "files"),
        ),
    )
)

MODULE = Table(
    (
        key_of(
            Module,
            "command",
            COMMAND,
            "The program and its arguments, as the kernel gets them: no shell reads them. The "
            "program is an absolute path, or a name that is found on PATH. It must stay in the foreground. "
            "Without it, what the workload's package says that starts it.",
            also=("cmd", "exec", "exec_start", "args", "run"),
        ),
        key_of(
            Module,
            "environment",
            TableOf(VARIABLE, WORD, "variables", heading="VARIABLE"),
            "Variables that the program gets beside PATH, LANG and those that tell where it runs.",
            also=("env", "environ", "variables"),
        ),
        key_of(
            Module,
            "working_folder",
            FOLDER,
            "Where the program starts; without it, /.",
            also=("cwd", "workdir", "working_dir", "working_directory", "folder"),
        ),
        key_of(
            Module,
            "user",
            USER,
            "The user that the program runs as; without it, the agent's own, root.",
            also=("uid", "run_as"),
        ),
        key_of(
            Module,
            "after",
            ListOf(name_of("a module"), "names of modules", most=MOST_MODULES, unique=True),
            "Modules of this workload that must be running before this one is started; they are stopped after it.",
            also=("depends_on", "requires", "needs", "wants", "dependencies"),
        ),
        key_of(
            Module,
            "stop_signal",
            Choice(SIGNALS),
            "The signal that asks the program to end.",
            also=("signal", "kill_signal"),
        ),
        key_of(
            Module,
            "stop_grace_s",
            SECONDS,
            "Seconds that it then has before it is killed.",
            also=("grace", "stop_timeout", "stop_grace_period"),
        ),
        Key(
            "limits",
            LIMITS,
            "The most that the module may use, with all its processes. What is left out is not limited.",
            also=("limit", "ulimits"),
        ),
        Key("restore", RESTORE, "What is done when the module fails.", also=("restart", "restore_policy")),
        Key(
            "readiness",
            READINESS,
            "When the module counts as running. Without it, that is once every check succeeded, or at "
            "once without checks.",
            also=("ready",),
        ),
        Key(
            "check",
            ListOf(CHECK, "checks", most=MOST_CHECKS),
            "Health checks. Without any, the module is healthy while its process is alive.",
            also=("checks", "health", "healthcheck", "health_check"),
        ),
    )
)
