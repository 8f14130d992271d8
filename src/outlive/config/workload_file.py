"""Workload files: from TOML to a `Workload` and back, and the JSON Schema for editors.

What the keys are is in `workload_shape`, what must hold between them in `workload_rules`. The invariant: what
`to_document` makes of a workload that was read, read again, is the same workload.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from outlive.cluster.host import Capacity
from outlive.cluster.pushed import PackageUse
from outlive.cluster.workload import (
    Check,
    Kind,
    Limits,
    Module,
    PlacementRules,
    Protection,
    Readiness,
    RestorePolicy,
    UpgradePolicy,
    VirtualIP,
    Workload,
)

from .machine_document import machine_document, machine_parts, needs_document
from .nouns import given, part
from .problems import FileInvalid, Problems
from .reading import Rules, checked_document, checked_text, file_bytes
from .schemas import schema_of
from .seed_files import names_files, take_in
from .toml_text import read_toml
from .toml_writer import toml_text
from .workload_rules import check_workload
from .workload_shape import WORKLOAD


class WorkloadFileError(FileInvalid):
    """A workload file with mistakes: `problems` has each with its line, path, sentence and fix."""

    id = "workload-file.invalid"
    what = "workload file"


def parse_workload(text: str | bytes, source: str = "the workload file", folder: Path | None = None) -> Workload:
    """Read a workload from TOML.

    text:   str, or bytes in UTF-8; at most 1 MiB.
    source: what mistakes are told of, usually the file's path.
    folder: where the paths of files begin that it takes texts from; they are read, which blocks. None: it may not.
    Raises WorkloadFileError with every mistake, and nothing else for any text or bytes.
    """
    return _workload(checked_text(text, source, WORKLOAD, _rules(folder), WorkloadFileError))


def read_workload(path: Path) -> Workload:
    """Read a workload file. It blocks. Raises WorkloadFileError, also when the file cannot be read."""
    return parse_workload(file_bytes(path, WorkloadFileError), str(path), path.parent)


def without_files(text: bytes, source: str, folder: Path | None) -> bytes:
    """Return a workload file that takes no text from other files, the same otherwise; one that takes none as it is.

    It blocks. Raises WorkloadFileError as `parse_workload` does.
    """
    workload = parse_workload(text, source, folder)
    document = read_toml(text).document
    if document is None or not names_files(document):
        return text
    return toml_text(to_document(workload)).encode()


def workload_from_document(document: object, source: str = "the workload") -> Workload:
    """Read a workload from what a TOML or JSON reader made of it. Raises WorkloadFileError, without lines."""
    return _workload(checked_document(document, source, WORKLOAD, _rules(None), WorkloadFileError))


def workload_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 7) of a workload file, as published in schema/workload.schema.json."""
    return schema_of(WORKLOAD, "workload", "A workload of Outlive: what is kept running, and how")


def to_document(workload: Workload) -> dict[str, Any]:
    """Return the document that a workload is read from, without what is as it would be anyway."""
    document: dict[str, Any] = {
        "name": workload.name,
        "kind": workload.kind.value,
        "protection": workload.protection.value,
        **given(workload, "priority", "after", "after_limit_s", "on_after_limit", "on_isolation", "data_on"),
    }
    machine = workload.machine
    needed = needs_document(workload, machine) if machine else given(workload.resources)
    document |= part("resources", needed)
    document |= part("placement", given(workload.placement))
    if workload.package is not None:
        wanted = f"@{workload.package.wanted}" if workload.package.wanted else ""
        document["package"] = workload.package.name + wanted
        document |= part("upgrade", given(workload.upgrade))
    if machine is not None:
        return document | machine_document(workload, machine)
    document |= part("virtual_ip", [given(virtual_ip) for virtual_ip in workload.virtual_ips])
    return document | {"module": {module.name: _module_document(module) for module in workload.modules}}


def _module_document(module: Module) -> dict[str, Any]:
    own = (
        *("command",) * bool(module.command),
        "environment",
        "working_folder",
        "user",
        "after",
        "stop_signal",
        "stop_grace_s",
    )
    return {
        **given(module, *own),
        **part("limits", given(module.limits)),
        **part("restore", given(module.restore)),
        **part("readiness", given(module.readiness) if module.readiness else {}),
        **part("check", [given(check) for check in module.checks]),
    }


def _rules(folder: Path | None) -> Rules:
    def rules(values: dict[str, Any], written: Mapping[str, Any], problems: Problems) -> None:
        take_in(values, folder, problems)
        check_workload(values, written, problems)

    return rules


def _workload(values: dict[str, Any]) -> Workload:
    parts = dict(values)
    placement = PlacementRules(**parts.pop("placement", {}))
    if parts.get("kind") is Kind.VM:
        machine = machine_parts(parts["name"], parts.get("protection", Protection.COLD), parts)
        return Workload(placement=placement, **machine, **parts)
    modules = tuple(_module(name, module) for name, module in parts.pop("module").items())
    resources = Capacity(**parts.pop("resources", {}))
    virtual_ips = tuple(VirtualIP(**virtual_ip) for virtual_ip in parts.pop("virtual_ip", ()))
    if "package" in parts:
        name, _, wanted = parts["package"].partition("@")
        parts["package"] = PackageUse(name, wanted)
    if "upgrade" in parts:
        parts["upgrade"] = UpgradePolicy(**parts["upgrade"])
    return Workload(modules=modules, resources=resources, placement=placement, virtual_ips=virtual_ips, **parts)


def _module(name: str, values: dict[str, Any]) -> Module:
    parts = dict(values)
    limits = Limits(**parts.pop("limits", {}))
    restore = RestorePolicy(**parts.pop("restore", {}))
    readiness = parts.pop("readiness", None)
    checks = tuple(Check(**check) for check in parts.pop("check", ()))
    return Module(
        name=name,
        command=parts.pop("command", ()),
        limits=limits,
        restore=restore,
        readiness=Readiness(**readiness) if readiness else None,
        checks=checks,
        **parts,
    )
