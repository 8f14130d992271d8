"""Workload files: from TOML to a `Workload` and back, and the JSON Schema for editors.

What the keys are is in `workload_shape`, what must hold between them in `workload_rules`. The invariant: what
`to_document` makes of a workload that was read, read again, is the same workload.
"""

from dataclasses import MISSING, fields
from enum import Enum
from pathlib import Path
from typing import Any

from outlive.cluster.host import Capacity
from outlive.cluster.workload import (
    Check,
    Limits,
    Module,
    PlacementRules,
    Readiness,
    RestorePolicy,
    VirtualIP,
    Workload,
)

from .problems import FileInvalid
from .reading import checked_document, checked_text, file_bytes
from .schemas import schema_of
from .workload_rules import check_workload
from .workload_shape import WORKLOAD


class WorkloadFileError(FileInvalid):
    """A workload file with mistakes: `problems` has each with its line, path, sentence and fix."""

    id = "workload-file.invalid"
    what = "workload file"


def parse_workload(text: str | bytes, source: str = "the workload file") -> Workload:
    """Read a workload from TOML.

    text:   str, or bytes in UTF-8; at most 1 MiB.
    source: what mistakes are told of, usually the file's path.
    Raises WorkloadFileError with every mistake, and nothing else for any text or bytes.
    """
    return _workload(checked_text(text, source, WORKLOAD, check_workload, WorkloadFileError))


def read_workload(path: Path) -> Workload:
    """Read a workload file. It blocks. Raises WorkloadFileError, also when the file cannot be read."""
    return parse_workload(file_bytes(path, WorkloadFileError), str(path))


def workload_from_document(document: object, source: str = "the workload") -> Workload:
    """Read a workload from what a TOML or JSON reader made of it. Raises WorkloadFileError, without lines."""
    return _workload(checked_document(document, source, WORKLOAD, check_workload, WorkloadFileError))


def workload_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 7) of a workload file, as published in schema/workload.schema.json."""
    return schema_of(WORKLOAD, "workload", "A workload of Outlive: what is kept running, and how")


def to_document(workload: Workload) -> dict[str, Any]:
    """Return the document that a workload is read from, without what is as it would be anyway."""
    document = {"name": workload.name, "kind": workload.kind.value, "protection": workload.protection.value}
    return {
        **document,
        **_given(workload, "priority", "on_isolation", "data_on"),
        **_part("resources", _given(workload.resources)),
        **_part("placement", _given(workload.placement)),
        **_part("virtual_ip", [_given(virtual_ip) for virtual_ip in workload.virtual_ips]),
        "module": {module.name: _module_document(module) for module in workload.modules},
    }


def _module_document(module: Module) -> dict[str, Any]:
    own = ("command", "environment", "working_folder", "user", "after", "stop_signal", "stop_grace_s")
    return {
        **_given(module, *own),
        **_part("limits", _given(module.limits)),
        **_part("restore", _given(module.restore)),
        **_part("readiness", _given(module.readiness) if module.readiness else {}),
        **_part("check", [_given(check) for check in module.checks]),
    }


def _part(key: str, part: dict[str, Any] | list[dict[str, Any]]) -> dict[str, Any]:
    return {key: part} if part else {}


def _given(noun: Any, *names: str) -> dict[str, Any]:
    """The fields of a noun (all of them, or these) that are not as they would be without being written."""
    given: dict[str, Any] = {}
    for field in fields(noun):
        value = getattr(noun, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if (names and field.name not in names) or value == default:
            continue
        match value:
            case Enum():
                given[field.name] = value.value
            case tuple():
                given[field.name] = list(value)
            case dict():
                given[field.name] = dict(value)
            case _:
                given[field.name] = value
    return given


def _workload(values: dict[str, Any]) -> Workload:
    parts = dict(values)
    modules = tuple(_module(name, module) for name, module in parts.pop("module").items())
    resources = Capacity(**parts.pop("resources", {}))
    placement = PlacementRules(**parts.pop("placement", {}))
    virtual_ips = tuple(VirtualIP(**virtual_ip) for virtual_ip in parts.pop("virtual_ip", ()))
    return Workload(modules=modules, resources=resources, placement=placement, virtual_ips=virtual_ips, **parts)


def _module(name: str, values: dict[str, Any]) -> Module:
    parts = dict(values)
    limits = Limits(**parts.pop("limits", {}))
    restore = RestorePolicy(**parts.pop("restore", {}))
    readiness = parts.pop("readiness", None)
    checks = tuple(Check(**check) for check in parts.pop("check", ()))
    return Module(
        name=name,
        limits=limits,
        restore=restore,
        readiness=Readiness(**readiness) if readiness else None,
        checks=checks,
        **parts,
    )
