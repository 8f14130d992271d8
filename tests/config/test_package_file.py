"""A package.toml becomes what it says, or one error with every mistake, its line and its fix."""

import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlive.cluster.package import FORMAT, Manifest, PackageCommand, problem_with
from outlive.config.package_file import (
    PackageFileError,
    PackageSource,
    package_schema,
    parse_package,
    read_package,
)
from outlive.config.toml_writer import toml_text

SCHEMA = jsonschema.Draft7Validator(package_schema())
START = 'name = "web"\nversion = "1.2.0"\n'
"""Two lines that are right; a case's own lines begin on the third."""

EVERYTHING = """
name = "web"
version = "1.2.0-rc.1"
description = "A web server with its pages"
files = "./root//x/"

[dependencies]
lib = ">=1.2, <2"
tls = "*"

[install]
command = ["bin/setup", "--prefix", "{package}"]
timeout_s = 20
environment = { MODE = "{package}/mode" }

[start]
command = ["{package}/bin/web", "--data", "{data}"]

[check]
command = ["/usr/bin/curl", "http://{address}/"]
"""


def test_every_key_is_read() -> None:
    assert parse_package(EVERYTHING) == PackageSource(
        name="web",
        version="1.2.0-rc.1",
        description="A web server with its pages",
        files="root/x",
        dependencies={"lib": ">=1.2, <2", "tls": "*"},
        install=PackageCommand(("{package}/bin/setup", "--prefix", "{package}"), 20.0, {"MODE": "{package}/mode"}),
        start=PackageCommand(("{package}/bin/web", "--data", "{data}"), 60.0),
        check=PackageCommand(("/usr/bin/curl", "http://{address}/"), 30.0),
    )
    SCHEMA.validate(tomllib.loads(EVERYTHING))


def test_a_name_and_a_version_are_enough() -> None:
    assert parse_package(START) == PackageSource("web", "1.2.0", files="files")


@pytest.mark.parametrize(
    ("text", "line", "path", "sentence", "fix"),
    [
        ('version = "1"', 2, "version", "must be a version", "three numbers"),
        ('verion = "1.0.0"', 3, "verion", "no key of this file", "Write version."),
        ('summary = "x"', 3, "summary", "no key of this file", "Write description."),
        ('description = "a\\u202Eb"', 3, "description", "cannot be printed", "one line"),
        ('description = "a\\nb"', 3, "description", "must be one line", "one line"),
        ('files = "/etc"', 3, "files", "must be a folder below", '"files"'),
        ('files = "../x"', 3, "files", "must be a folder below", '"files"'),
        ('files = "."', 3, "files", "must be a folder below", '"files"'),
        ('dependencies.lib = "new"', 3, "dependencies.lib", "no range of versions", "^1.2"),
        ('dependencies.web = "*"', 3, "dependencies.web", "is the package itself", "Remove it."),
        ('dependencies.Lib = "*"', 3, "dependencies.Lib", "must be a name for a package", "a-z"),
        ('dependencies = ["lib"]', 3, "dependencies", "must be a table of packages", "KEY = VALUE"),
        ("[install]", 3, "install.command", "is missing", "Write command"),
        ('[install]\ncommand = "make install"', 4, "install.command", "must be a list", '["make", "install"]'),
        ("[install]\ncommand = []", 4, "install.command", "must not be an empty list", "Name a program."),
        ('[start]\ncommand = ["{data}/x"]', 4, "start.command[0]", "begins neither", "{package}/"),
        ('[start]\ncommand = ["x", "{adress}"]', 4, "start.command[1]", "stands for nothing", "{address}"),
        ('[install]\ncommand = ["x", "{address}"]', 4, "install.command[1]", "stands for nothing", "{package}"),
        ('[check]\ncommand = ["x"]\ntimeout = 5', 5, "check.timeout", "no key of this table", "timeout_s"),
        ('[check]\ncommand = ["x"]\ntimeout_s = 0', 5, "check.timeout_s", "above 0", "in this range"),
        ('[check]\ncommand = ["x"]\nenvironment.OUTLIVE_A = ""', 5, "check.environment.OUTLIVE_A", "not begin", "set"),
        ('[check]\ncommand = ["x"]\nenvironment.A = 1', 5, "check.environment.A", "must be text", '"1"'),
        ('[check]\ncommand = ["x"]\ndescription = "x"', 5, "check.description", "no key of this table", "file's top"),
    ],
)
def test_each_mistake_has_its_line_path_sentence_and_fix(
    text: str, line: int, path: str, sentence: str, fix: str
) -> None:
    start = START.partition("\n")[0] + "\n" if text.startswith("version") else START
    with pytest.raises(PackageFileError) as caught:
        parse_package(start + text + "\n")
    (problem,) = caught.value.problems
    assert (problem.line, problem.path) == (line, path)
    assert sentence in problem.sentence
    assert fix in problem.fix


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(PackageFileError) as caught:
        parse_package('version = "one"\nfiles = 3\n[install]\ntimeout_s = "x"\n')
    wrong = {problem.path for problem in caught.value.problems}
    assert wrong == {"name", "version", "files", "install.command", "install.timeout_s"}


def test_a_command_that_is_too_long_is_told() -> None:
    word = "x" * 30_000
    with pytest.raises(PackageFileError, match="100000 characters"):
        parse_package(f'{START}[install]\ncommand = ["x", "{word}", "{word}", "{word}", "{word}"]\n')


def test_a_file_is_read_from_disk_or_told_as_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "package.toml"
    with pytest.raises(PackageFileError, match="cannot be read"):
        read_package(path)
    path.write_text(START)
    assert read_package(path).name == "web"


NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True)
WORDS = st.sampled_from(["", "{package}/x", "{{print}}", "{", "${x:-y}", "a b"]) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0{}"), max_size=8
)
COMMANDS = st.fixed_dictionaries(
    {
        "command": st.tuples(st.sampled_from(["x", "/bin/x", "bin/x", "./x/y", "{package}/x"]), st.lists(WORDS)).map(
            lambda parts: [parts[0], *parts[1]]
        )
    },
    optional={
        "timeout_s": st.floats(0.001, 86_400) | st.integers(1, 86_400),
        "environment": st.dictionaries(st.from_regex("[A-NP-Z_][A-Za-z0-9_]{0,4}", fullmatch=True), WORDS, max_size=3),
    },
)
DOCUMENTS = st.fixed_dictionaries(
    {"name": NAMES, "version": st.sampled_from(["1.0.0", "0.0.1-a.1", "3.22.1"])},
    optional={
        "description": st.text(st.characters(categories=["L", "N", "P"]), max_size=20),
        "files": st.sampled_from(["files", "a/b", "./x"]),
        "dependencies": st.dictionaries(
            NAMES.map(lambda name: f"{name}0"), st.sampled_from(["*", "^1", ">=1, <2"]), max_size=3
        ),
        "start": COMMANDS,
        "check": COMMANDS,
    },
)


@given(DOCUMENTS)
def test_what_is_read_makes_a_manifest_that_is_right(document: dict[str, Any]) -> None:
    if document["name"] in document.get("dependencies", {}):
        document["dependencies"] = {}
    SCHEMA.validate(document)
    source = parse_package(toml_text(document))
    manifest = Manifest(
        format=FORMAT,
        name=source.name,
        version=source.version,
        description=source.description,
        dependencies=source.dependencies,
        start=source.start,
        check=source.check,
    )
    assert problem_with(manifest) == ""


PIECES = st.sampled_from(
    [
        "name",
        "version",
        "=",
        '"web"',
        '"1.0.0"',
        "[install]",
        "[dependencies]",
        "command",
        "[",
        "]",
        "{",
        "}",
        "\n",
        '"',
    ]
)


@settings(max_examples=200)
@given(st.text() | st.binary() | st.lists(PIECES).map(" ".join))
def test_any_text_or_bytes_are_read_or_told(raw: str | bytes) -> None:
    try:
        parse_package(raw)
    except PackageFileError as error:
        assert error.problems  # noqa: PT017 – every one of them is right to have some
