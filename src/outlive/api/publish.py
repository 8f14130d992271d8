"""Write the API's OpenAPI document to docs/openapi.json: `python -m outlive.api.publish` in the repository."""

import json
import sys
from pathlib import Path

from .app import GROUPS
from .document import document


def published(root: Path) -> dict[Path, str]:
    """The published file with the text that it should have. root: the repository."""
    return {root / "docs" / "openapi.json": json.dumps(document(GROUPS), indent=1, ensure_ascii=False) + "\n"}


def main(root: Path) -> None:
    """Write it anew."""
    for path, text in published(root).items():
        path.write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
