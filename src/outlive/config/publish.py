"""What is published of the files' keys: JSON Schemas for editors, and the tables of the reference in docs/.

All of it is made from the shapes; `python -m outlive.config.publish` in the repository writes it anew, and a test
tells when that was forgotten.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from outlive.cluster.workload import Kind

from .agent_file import agent_schema
from .agent_shape import AGENT
from .package_file import package_schema
from .package_shape import PACKAGE
from .shapes import Bad, Choice
from .tables import Key, Table, every_table
from .workload_file import workload_schema
from .workload_shape import WORKLOAD

BEGIN = "<!-- keys: written by `python -m outlive.config.publish` -->"
END = "<!-- end of keys -->"

SCHEMAS = "src/outlive/config/schema"
"""Where the schemas are, from the repository's root."""


DOCUMENTS = {
    "workload-file.md": (WORKLOAD, Kind.SERVICE),
    "vm-file.md": (WORKLOAD, Kind.VM),
    "agent-file.md": (AGENT, ""),
    "package-file.md": (PACKAGE, ""),
}
"""The references: whose keys each tells, and of which kind of file."""


def published(root: Path) -> dict[Path, str]:
    """Return every published file with the text that it should have. root: the repository."""
    files = {
        root / SCHEMAS / "workload.schema.json": schema_text(workload_schema()),
        root / SCHEMAS / "agent.schema.json": schema_text(agent_schema()),
        root / SCHEMAS / "package.schema.json": schema_text(package_schema()),
    }
    for name, (table, kind) in DOCUMENTS.items():
        path = root / "docs" / name
        files[path] = with_keys(path.read_text(), table, kind)
    return files


def schema_text(schema: dict[str, Any]) -> str:
    """Return a schema as it stands in its file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def with_keys(text: str, root: Table, kind: str = "") -> str:
    """Return a document with the tables between its two marks made anew. ValueError if the marks are not there.

    kind: only the keys of a file of this kind.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the marks {BEGIN!r} and {END!r} are missing")
    return f"{before}{BEGIN}\n\n{keys_text(root, kind)}\n{END}{after}"


def keys_text(root: Table, kind: str = "") -> str:
    """Return the tables of all keys in Markdown, or of those that a file of a kind may have."""
    parts = []
    for header, about, table in every_table(root, kind):
        keys = table.keys
        if kind and table is root:
            keys = tuple(replace(key, only=()) for key in root.keys_for(kind))
        rows = [f"| `{key.name}` | {_must_be(key)} | {_default(key)} | {_about(key)} |" for key in keys]
        heading = f"### `{header}`\n\n{about}" if header else "### The file's top\n\nAbove all tables."
        parts.append("\n".join((heading, "", "| key | value | without it | meaning |", "|---|---|---|---|", *rows, "")))
    return "\n".join(parts)


def _must_be(key: Key) -> str:
    if isinstance(key.shape, Choice):
        return ", ".join(f'`"{word}"`' for word in key.shape.words)
    return key.shape.must_be.replace("|", "\\|")


def _default(key: Key) -> str:
    if key.required:
        return f"required for {' and '.join(key.only)}" if key.only else "required"
    return "" if isinstance(key.default, Bad) else f"`{json.dumps(key.default)}`"


def _about(key: Key) -> str:
    only = f" For {' and '.join(key.only)}." if key.only and not key.required else ""
    return (key.about + only).replace("|", "\\|")


def main() -> None:
    """Write what is published into the repository that the first argument names, or the current folder."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    for path, text in published(root).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
