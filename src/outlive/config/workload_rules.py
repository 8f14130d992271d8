"""What must hold between the keys of a workload file, where each is right by itself.

A rule looks only at values that are right, so that one mistake is not told twice; and where parts of the file could
not be read, nothing is held to be missing.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from outlive.cluster.workload import RestorePolicy

from .module_shape import COMMAND
from .placeholders import KNOWN, used
from .problems import Path, Problems, shown
from .shapes import nearest
from .vm_rules import check_vm

Values = Mapping[str, Any]


def check_workload(values: dict[str, Any], given: Values, problems: Problems) -> None:
    """Note what does not hold.

    values: what is right of the file.  given: all that stands in it.
    """
    modules: Mapping[str, Values] = {
        name: module for name, module in values.get("module", {}).items() if isinstance(module, dict)
    }
    for index, other in enumerate(values.get("after", ())):
        if other == values.get("name"):
            problems.add(("after", index), "names the workload itself", "Remove it.")
    _company_is_possible(values.get("name"), values.get("placement", {}), problems)
    _virtual_ips_are_unique(values.get("virtual_ip", ()), problems)
    _order_is_possible(modules, values.get("module", {}), problems)
    for name, module in modules.items():
        at = ("module", name)
        for where, text in _texts_with_placeholders(module, at):
            _placeholders_are_known(text, where, given, problems)
        _backoff_can_grow(module.get("restore", {}), at, problems)
        _something_starts_it(name, given, problems)
    if "upgrade" in given and "package" not in given:
        problems.add(("upgrade",), "is for a workload with a package, and this has none", 'Write package = "NAME".')
    check_vm(values, given, problems)


def _company_is_possible(name: object, placement: object, problems: Problems) -> None:
    """No workload is together with itself, nor with what it is apart from."""
    if not isinstance(placement, dict):
        return
    pairs = (("together_with", "apart_from"), ("prefer_together_with", "prefer_apart_from"))
    for key in (key for pair in pairs for key in pair):
        for index, other in enumerate(placement.get(key, ())):
            if other == name:
                problems.add(("placement", key, index), "names the workload itself", "Remove it.")
    for together, apart in (*pairs, ("together_with", "prefer_apart_from"), ("prefer_together_with", "apart_from")):
        for index, other in enumerate(placement.get(apart, ())):
            if isinstance(other, str) and other in placement.get(together, ()):
                problems.add(
                    ("placement", apart, index),
                    f"names {shown(other)}, which stands in {together} too",
                    "Remove it from one of the two.",
                )


def _something_starts_it(name: str, given: Values, problems: Problems) -> None:
    """A module has a command of its own, unless the workload's package brings one."""
    modules = given.get("module")
    written = modules.get(name) if isinstance(modules, Mapping) else None
    if isinstance(written, Mapping) and "command" not in written and "package" not in given and problems.whole:
        problems.add(("module", name, "command"), "is missing", f"Write command = …: {COMMAND.must_be}.")


def _virtual_ips_are_unique(virtual_ips: tuple[Values, ...], problems: Problems) -> None:
    seen: set[str] = set()
    for index, virtual_ip in enumerate(virtual_ips):
        written = virtual_ip.get("address", "") if isinstance(virtual_ip, dict) else ""
        address = str(written).partition("/")[0]
        if address in seen:
            problems.add(
                ("virtual_ip", index, "address"), f"names {address} for the second time", "Remove one of the two."
            )
        if address:
            seen.add(address)


def _order_is_possible(modules: Mapping[str, Values], named: Mapping[str, Any], problems: Problems) -> None:
    after: dict[str, list[str]] = {}
    for name, module in modules.items():
        after[name] = []
        for index, other in enumerate(module.get("after", ())):
            at = ("module", name, "after", index)
            if other == name:
                problems.add(at, "names its own module", "Remove it.")
            elif not isinstance(other, str):
                continue
            elif other in named:
                after[name].append(other)
            elif problems.whole:
                names = tuple(one for one in named if one != name)
                near = nearest(other, names)
                known = f"The others are {', '.join(names)}." if names else "There is no other module."
                fix = f"Write {shown(names[near])}." if near is not None else known
                problems.add(at, f"names {shown(other)}, which is no module of this file", fix)
    while cycle := _cycle(after):
        first = cycle[0]
        told = " after ".join((*cycle, first))
        problems.add(
            ("module", first, "after"), f"makes a circle: {told}", "Remove one of these, so that one can be first."
        )
        after[first].remove(cycle[1])


def _cycle(after: Mapping[str, list[str]]) -> tuple[str, ...]:
    """The names along one circle of at least two, beginning with the one that stands first; empty if there is none."""
    done: set[str] = set()

    def along(name: str, way: tuple[str, ...]) -> tuple[str, ...]:
        if name in way:
            return way[way.index(name) :]
        if name not in done:
            for other in after.get(name, ()):
                if found := along(other, (*way, name)):
                    return found
            done.add(name)
        return ()

    return next((found for name in after if (found := along(name, ()))), ())


def _texts_with_placeholders(module: Values, at: Path) -> Iterator[tuple[Path, str]]:
    for index, word in enumerate(module.get("command", ())):
        yield (*at, "command", index), word
    for name, value in module.get("environment", {}).items():
        yield (*at, "environment", name), value
    if "working_folder" in module:
        yield (*at, "working_folder"), module["working_folder"]
    for number, check in enumerate(module.get("check", ())):
        if not isinstance(check, dict):
            continue
        for index, word in enumerate(check.get("command", ())):
            yield (*at, "check", number, "command", index), word
        if "address" in check:
            yield (*at, "check", number, "address"), check["address"]


def _placeholders_are_known(text: object, at: Path, given: Values, problems: Problems) -> None:
    if not isinstance(text, str):
        return
    for word in dict.fromkeys(used(text)):
        if word not in KNOWN:
            names = tuple(KNOWN)
            near = nearest(word.lower(), names)
            meant = f"{{{names[near]}}}" if near is not None else f"one of {', '.join(f'{{{name}}}' for name in KNOWN)}"
            problems.add(
                at,
                f"has {shown(f'{{{word}}}')}, which stands for nothing",
                f"Write {meant}, or {shown(f'{{{{{word}}}}}')} for the word in braces itself.",
            )
        elif not problems.whole:
            continue
        elif word == "data" and "data_on" not in given:
            problems.add(
                at,
                "has {data}, but the workload has no data folder",
                'Write data_on = "DATASTORE" at the file\'s top, above all tables.',
            )
        elif word == "package" and "package" not in given:
            problems.add(
                at,
                "has {package}, but the workload names no package",
                'Write package = "NAME" at the file\'s top, above all tables.',
            )
        elif word == "address" and not given.get("virtual_ip"):
            problems.add(
                at, "has {address}, but the workload has no virtual IP", "Write [[virtual_ip]] with its address."
            )


def _backoff_can_grow(restore: Values, at: Path, problems: Problems) -> None:
    usual = RestorePolicy()
    least = restore.get("backoff_s", usual.backoff_s)
    most = restore.get("backoff_most_s", usual.backoff_most_s)
    if least > most:
        key, other = ("backoff_s", "backoff_most_s") if "backoff_s" in restore else ("backoff_most_s", "backoff_s")
        word = "above" if key == "backoff_s" else "below"
        problems.add(
            (*at, "restore", key),
            f"must not be {word} {other}, which is {most if word == 'above' else least:g}",
            f"Write both, {other} {'the larger' if word == 'above' else 'the smaller'}.",
        )
