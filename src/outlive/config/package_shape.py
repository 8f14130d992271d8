"""The keys of a package.toml: what each may be, what holds without it, and what it means.

Each key is told here once, for the reader, the JSON Schema and the reference in docs/package-file.md. Defaults are
those of the noun in `outlive.cluster.package`.
"""

from outlive.cluster.package import (
    CHECK_TIMEOUT_S,
    INSTALL_TIMEOUT_S,
    LONGEST_COMMAND,
    LONGEST_DESCRIPTION,
    LONGEST_TIMEOUT_S,
    MOST_DEPENDENCIES,
    OWN_VARIABLES,
    PLACEHOLDER,
    START_TIMEOUT_S,
    path_problem,
)
from outlive.cluster.versions import LONGEST_RANGE, LONGEST_VERSION, RANGE_FIX, VERSION, parse_range
from outlive.errors import UsageInvalid

from .module_shape import VARIABLE, WORD, as_words
from .problems import shown
from .shapes import Number, Text, Wrong
from .tables import Key, ListOf, Table, TableOf
from .texts import name_of

FILES = "files"
"""The folder beside package.toml with the package's files, if it names no other."""
MOST_PACKAGE_WORDS = 256
MOST_VARIABLES = 64


def _range(text: str) -> str:
    try:
        parse_range(text)
    except UsageInvalid:
        raise Wrong(f"has {shown(text)}, which is no range of versions", RANGE_FIX) from None
    return text


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise Wrong("has a character that cannot be printed", "Write it on one line, without control characters.")
    return text


def _folder(text: str) -> str:
    """A folder's path below the one where package.toml is; several spellings are one."""
    path = "/".join(part for part in text.split("/") if part not in ("", "."))
    if text.startswith("/") or not path or path_problem(path):
        raise Wrong("must be a folder below the one with package.toml", f'Write its name, such as "{FILES}".')
    return path


def _program(text: str) -> str:
    """A program's path as the manifest has it: one in the package begins with the package's folder."""
    if "/" not in text or text.startswith(("/", f"{PLACEHOLDER}/")):
        return text
    if text.startswith("{"):
        raise Wrong("begins neither at the root nor in the package", f'Begin it with "/" or "{PLACEHOLDER}/".')
    return f"{PLACEHOLDER}/{text.removeprefix('./')}"


def _own_variable(text: str) -> Text:
    return Text(
        f"the name of a variable that does not begin with {text}",
        f"(?!{text}){VARIABLE.pattern}",
        f"{VARIABLE.fix} Those that begin with {text} are set for every command.",
        least=1,
        most=VARIABLE.most,
    )


VERSION_TEXT = Text(
    "a version such as 1.4.2 or 2.0.0-rc.1",
    VERSION.pattern,
    "Write three numbers with dots between; a pre-release has a hyphen and labels after them.",
    least=5,
    most=LONGEST_VERSION,
)
RANGE_TEXT = Text("a range of versions", r"[^\x00-\x1f]*", RANGE_FIX, least=1, most=LONGEST_RANGE, made=_range)
DESCRIPTION = Text(
    "one line of text",
    r"[^\x00-\x1f\x7f-\x9f]*",
    "Write it on one line, without control characters.",
    most=LONGEST_DESCRIPTION,
    made=_one_line,
)
FOLDER = Text("a folder's path", r"[^\x00]+", f'Write its name, such as "{FILES}".', least=1, most=1024, made=_folder)
PROGRAM = Text(
    "the name or path of a program", r"[^\x00]+", "Name a program.", least=1, most=LONGEST_COMMAND // 4, made=_program
)
COMMAND = ListOf(
    WORD,
    "words",
    least=1,
    most=MOST_PACKAGE_WORDS,
    first=PROGRAM,
    fix="Name a program.",
    from_text=as_words,
)


def _command(about: str, timeout_s: float, about_timeout: str) -> Table:
    return Table(
        (
            Key(
                "command",
                COMMAND,
                f"{about} No shell reads it. A program is an absolute path, a bare name that is found on PATH, or a "
                f"path with a '/' in it, which begins at the package's files; {PLACEHOLDER} stands for their folder.",
                required=True,
                also=("cmd", "exec", "script", "run"),
            ),
            Key(
                "timeout_s",
                Number(0, LONGEST_TIMEOUT_S, above=True),
                about_timeout,
                timeout_s,
                also=("timeout", "time_limit", "time_limit_s"),
            ),
            Key(
                "environment",
                TableOf(_own_variable(OWN_VARIABLES), WORD, "variables", most=MOST_VARIABLES, heading="NAME"),
                "Variables for it, besides those that every command of a package gets.",
                also=("env", "variables"),
            ),
        )
    )


PACKAGE = Table(
    (
        Key(
            "name",
            name_of("a package"),
            "What the package is called: 1 to 63 of a-z, 0-9 and '-'.",
            required=True,
            also=("id", "package"),
        ),
        Key(
            "version",
            VERSION_TEXT,
            "Its version by the rules of semver.org, without build metadata. A version that was pushed never changes.",
            required=True,
        ),
        Key("description", DESCRIPTION, "What it is, on one line, for people.", "", also=("summary", "about")),
        Key(
            "files",
            FOLDER,
            "The folder with its files, beside package.toml. All in it is taken: regular files with their permissions, "
            "which others than the owner never get for writing. There are no links in a package.",
            FILES,
            also=("folder", "root", "src", "source"),
        ),
        Key(
            "dependencies",
            TableOf(name_of("a package"), RANGE_TEXT, "packages", most=MOST_DEPENDENCIES, heading="NAME"),
            "Packages that must be installed before it, each with the versions that will do.",
            also=("depends", "depends_on", "requires", "needs"),
        ),
        Key(
            "install",
            _command(
                "The program that finishes installing, once, where the package's files are; when it fails, nothing of "
                "the package stays.",
                INSTALL_TIMEOUT_S,
                "How long it may take, in seconds.",
            ),
            "What is done once on each host where the package is installed.",
            also=("setup", "postinst"),
        ),
        Key(
            "start",
            _command(
                "The program of a module that names no command of its own. It stays in the foreground.",
                START_TIMEOUT_S,
                "How long it may take until it works, in seconds.",
            ),
            "What a workload runs of the package.",
            also=("main", "service", "run"),
        ),
        Key(
            "check",
            _command(
                "The program that tells by its exit code whether what was started works.",
                CHECK_TIMEOUT_S,
                "How long it may take, in seconds.",
            ),
            "What is asked of a module that the package starts, and that names no check of its own.",
            also=("health", "healthcheck", "test"),
        ),
    )
)
