"""How benches show what they measured: plain tables, and the figures to reach."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def new_table(columns: str) -> "Table":
    """A table with these columns, named with | between them."""
    from rich.table import Table

    return Table(*columns.split("|"), box=None, pad_edge=False, padding=(0, 2))


def figures(reached: list[dict[str, Any]]) -> "Table":
    """Figures to reach, what was measured, and whether each holds."""
    table = new_table("TO REACH|MEASURED|LIMIT|")
    for row in reached:
        unit = f" {row['unit']}" if row["unit"] else ""
        value = "-" if row["value"] is None else f"{row['value']:g}{unit}"
        table.add_row(row["what"], value, f"{row['side']} {row['limit']:g}{unit}", "" if row["holds"] else "no")
    return table
