"""Words in braces that stand for what is known only where a workload runs: `{data}`, `{address}` and the like.

A word in braces is always meant as one of these: an unknown one is a mistake, and `{{word}}` stands for `{word}`
itself. Every other brace is text, so that JSON or a shell's `${a:-b}` need no care.
"""

import re
from collections.abc import Mapping

KNOWN: Mapping[str, str] = {
    "data": "the workload's data folder, on the datastore that `data_on` names",
    "address": "the workload's first virtual IP, without prefix length",
    "host": "the name of the host that it runs on",
    "workload": "the workload's name",
    "package": "the folder where its package is installed",
    "generation": "the number of its present reign, which only grows",
}

_IN_BRACES = re.compile(r"\{\{([A-Za-z_][A-Za-z0-9_]*)\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}")


def used(text: str) -> tuple[str, ...]:
    """The words in braces of a text, known or not, in order; none that is doubled."""
    return tuple(found[2] for found in _IN_BRACES.finditer(text) if found[2])


def filled(text: str, values: Mapping[str, str]) -> str:
    """Return the text with each word in braces replaced by its value; one without a value stays as it is."""

    def value(found: re.Match[str]) -> str:
        return f"{{{found[1]}}}" if found[1] else values.get(found[2], found[0])

    return _IN_BRACES.sub(value, text)
