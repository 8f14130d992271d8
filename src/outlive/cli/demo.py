"""`outlive demo`: show a real service outliving its host, in a lab on this machine."""

import time

import click

from .output import json_option, print_json, stderr_console, stdout_console


@click.command()
@click.option("--hosts", "count", type=click.IntRange(2, 32), default=3, show_default=True, help="How many hosts.")
@json_option
def command(count: int, as_json: bool) -> int:
    """Show a real service outliving its host, in a lab on this machine.

    Three hosts, a Redis whose every write is synced to the datastore, clients that count through its virtual IP. Then
    the power of its host is cut. Everything is cleared away at the end, on Ctrl-C, and if this is killed.
    """
    from outlive.lab import demo
    from outlive.lab.sentinel import owned_lab

    began = time.monotonic()
    console = stderr_console()

    def progress(step: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:6.1f} s[/]  {step}")

    with owned_lab("demo", count, 1, progress) as lab:
        story = demo.play(lab, progress)
    kept = demo.kept_its_word(story.counts)
    show(story)
    if as_json:
        counts = {**story.counts, "took_s": round(time.monotonic() - began, 1)}
        timeline = [{"after_s": round(each.after_s, 3), "what": each.what} for each in story.timeline]
        print_json({"bench": "demo", **counts, "timeline": timeline, "reach": demo.reach(story.counts), "peers": []})
    return 0 if kept else 1


def show(story: "object") -> None:
    """Print the timeline, and the counts as sentences."""
    from rich.table import Table

    from outlive.lab import demo

    assert isinstance(story, demo.Story)
    console = stdout_console()
    table = Table("AFTER", "WHAT", "DETAIL", box=None, pad_edge=False, padding=(0, 2))
    for each in story.timeline:
        table.add_row(f"{each.after_s * 1000:+8.0f} ms", each.what, f"[dim]{each.detail}[/]")
    console.print(table)
    counts = story.counts
    console.print()
    console.print(
        f"{counts['acknowledged']} increments were acknowledged; {counts['lost']} of them lost, "
        f"{counts['duplicated']} counted twice. Two hosts acted at once: {'yes' if counts['double_run'] else 'never'}."
    )
    verdict = "Redis outlived its host." if demo.kept_its_word(counts) else "A promise was broken; see above."
    console.print(verdict, style="bold green" if demo.kept_its_word(counts) else "bold red")
