"""JSON Schema (draft 7, which TOML editors know) of a whole file."""

from typing import Any

from .tables import Table


def schema_of(root: Table, name: str, title: str) -> dict[str, Any]:
    """Return the schema of a file whose keys `root` tells, under the name urn:outlive:schema:NAME."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": f"urn:outlive:schema:{name}",
        "title": title,
        **root.schema(),
    }
