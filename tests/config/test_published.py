"""What is published of the files' keys is what the reader knows, and the examples are what people may start from."""

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from outlive.config.agent_file import agent_schema, parse_agent
from outlive.config.agent_shape import AGENT
from outlive.config.package_file import package_schema, parse_package
from outlive.config.package_shape import PACKAGE
from outlive.config.placeholders import KNOWN
from outlive.config.publish import published, with_keys
from outlive.config.tables import Table, every_table
from outlive.config.workload_file import parse_workload, workload_schema
from outlive.config.workload_shape import WORKLOAD

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))
DOCS: dict[str, Callable[[str, str], object]] = {
    "workload-file.md": parse_workload,
    "vm-file.md": parse_workload,
    "agent-file.md": parse_agent,
    "package-file.md": parse_package,
}


def test_schemas_and_references_are_current() -> None:
    """If this fails, run `python -m outlive.config.publish` in the repository."""
    stale = [str(path) for path, text in published(ROOT).items() if not path.exists() or path.read_text() != text]
    assert stale == []


@pytest.mark.parametrize(
    "schema", [workload_schema(), agent_schema(), package_schema()], ids=["workload", "agent", "package"]
)
def test_schemas_are_valid_and_describe_every_key(schema: dict[str, object]) -> None:
    jsonschema.Draft7Validator.check_schema(schema)
    json.dumps(schema)


@pytest.mark.parametrize("root", [WORKLOAD, AGENT, PACKAGE], ids=["workload", "agent", "package"])
def test_every_key_is_told_in_a_sentence(root: Table) -> None:
    for header, _, table in every_table(root):
        for key in table.keys:
            assert key.about.endswith("."), f"{header} {key.name}"
        names = [key.name for key in table.keys]
        assert len(set(names)) == len(names)
        assert not {name for key in table.keys for name in key.also} & set(names), header


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_right(path: Path) -> None:
    text = path.read_text()
    parse_workload(text, path.name)
    jsonschema.Draft7Validator(workload_schema()).validate(tomllib.loads(text))
    directive = re.match(r"#:schema (\S+)\n", text)
    assert directive is not None
    assert json.loads((path.parent / directive[1]).read_text()) == workload_schema()


@pytest.mark.parametrize("name", DOCS)
def test_whole_files_in_the_documents_are_right(name: str) -> None:
    parse = DOCS[name]
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / name).read_text(), re.DOTALL)
    files = [block for block in blocks if re.match(r"(name|host) = ", block)]
    assert files
    for text in files:
        parse(text, name)


def test_the_documents_tell_every_word_in_braces() -> None:
    text = (ROOT / "docs" / "workload-file.md").read_text()
    for word, meaning in KNOWN.items():
        assert f"| `{{{word}}}` | {meaning} |" in text


def test_there_are_examples_of_one_and_of_several_modules_and_of_machines_under_each_protection() -> None:
    read = {path.name: parse_workload(path.read_text()) for path in EXAMPLES}
    assert {name: (len(each.modules), each.kind.value, each.protection.value) for name, each in read.items()} == {
        "redis.toml": (1, "service", "cold"),
        "web.toml": (2, "service", "cold"),
        "vm-cold.toml": (1, "vm", "cold"),
        "vm-warm.toml": (1, "vm", "warm"),
        "vm-hot.toml": (1, "vm", "hot"),
    }


def test_the_reference_of_a_kind_tells_its_keys_alone() -> None:
    service, machine = ((ROOT / "docs" / name).read_text() for name in ("workload-file.md", "vm-file.md"))
    assert ("[module.NAME]" in service, "[[vm.disk]]" in service) == (True, False)
    assert ("[module.NAME]" in machine, "[[vm.disk]]" in machine) == (False, True)


def test_a_document_without_marks_is_not_written_over() -> None:
    with pytest.raises(ValueError, match="marks"):
        with_keys("# A document\n", WORKLOAD)
