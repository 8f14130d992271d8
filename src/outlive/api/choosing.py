"""Which versions of packages a workload takes when its file is applied: chosen once, and pinned by content.

What runs stays as it is as long as the file allows it; newer versions are taken when the user asks for them, or when
the file does not allow the old one any more. A version that was given up is not taken again unless it is asked for.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from outlive.cluster import records as rec
from outlive.cluster.copies import needed_by
from outlive.cluster.mirror import Mirror
from outlive.cluster.package import Manifest, PackageCommand
from outlive.cluster.pushed import PackageRecord, Pinned
from outlive.cluster.transaction import Compare, Put, unchanged
from outlive.cluster.versions import ANY, Version, Wanted, parse_range, parse_version
from outlive.cluster.workload import Check, CheckKind, Module, Workload
from outlive.depot.resolve import Known, resolve
from outlive.errors import OutliveError, UsageInvalid

from .problems import Conflict


@dataclass(frozen=True, slots=True)
class Wishes:
    """upgrade: take the newest versions that will do. retry: also such as were given up."""

    upgrade: bool = False
    retry: bool = False


AS_IS = Wishes()


def chosen(picture: Mirror, workload: Workload, stands: Workload | None, wishes: Wishes) -> Workload:
    """The workload with its packages chosen, and its modules started by what these say where they do not say it.

    stands: as it is kept now.  Raises PackageMissing, DependencyConflict, DependencyCycle; UsageInvalid where nothing
    starts a module; Conflict for a version that was given up.
    """
    use = workload.package
    if use is None:
        return workload
    before = stands.package if stands is not None else None
    if before is not None and before.name == use.name and not wishes.upgrade and _allows(use.wanted, before.version):
        kept = replace(before, wanted=use.wanted)
        return _started(replace(workload, package=kept), _record(picture, before.key))
    keep: dict[str, Version] = {}
    if before is not None and not wishes.upgrade:
        keep = {each.name: parse_version(each.version) for each in before.all()}
    asked = Wanted(use.name, parse_range(use.wanted) if use.wanted else ANY)
    records = [entry.record for entry in picture.packages.values() if not entry.record.removing]
    good = [each for each in records if wishes.retry or not each.failed or _is_kept(each, keep)]
    try:
        found = resolve([asked], _known(good), keep=keep)
    except OutliveError:
        if len(good) == len(records):
            raise
        found = resolve([asked], _known(records), keep=keep)
        _refuse_given_up([each for each in records if any(one.id == each.id for one in found)])
        raise
    *needs, own = (Pinned(each.name, str(each.version), each.id) for each in found)
    pinned = replace(use, version=own.version, id=own.id, needs=tuple(needs))
    return _started(replace(workload, package=pinned), _record(picture, own.key))


def _allows(wanted: str, version: str) -> bool:
    return not wanted or parse_version(version) in parse_range(wanted)


def _is_kept(record: PackageRecord, keep: dict[str, Version]) -> bool:
    return record.name in keep and keep[record.name] == parse_version(record.version)


def _known(records: Iterable[PackageRecord]) -> list[Known]:
    return [
        Known(
            each.name,
            parse_version(each.version),
            each.id,
            tuple(Wanted(name, parse_range(text)) for name, text in sorted(each.requires.items())),
        )
        for each in records
    ]


def _refuse_given_up(taken: list[PackageRecord]) -> None:
    for each in taken:
        if each.failed:
            where, why = min(each.failed.items())
            raise Conflict(
                f"The package {each.key} was given up before.",
                cause=f"with {where}: {why}",
                remedy="push a mended version, or try this one again with --retry-failed",
            )


def _record(picture: Mirror, key: str) -> PackageRecord | None:
    entry = picture.packages.get(key)
    return entry.record if entry is not None else None


def _started(workload: Workload, package: PackageRecord | None) -> Workload:
    """Have the package start the modules that name no command, and tell whether these work."""
    return replace(workload, modules=tuple(_module(workload, each, package) for each in workload.modules))


def _module(workload: Workload, module: Module, package: PackageRecord | None) -> Module:
    if module.command:
        return module
    start = package.start if package is not None else None
    if package is None or start is None:
        key = workload.package.key if workload.package is not None else ""
        raise UsageInvalid(
            f"Nothing starts module {module.name} of {workload.name}.",
            cause=f"it has no command, and its package {key} says none",
            remedy=f"write command = […] in [module.{module.name}], or [start] in the package's package.toml",
        )
    checks = module.checks
    if package.check is not None and not checks:
        checks = (_check(package.check, start),)
    return replace(
        module,
        command=start.command,
        environment={**start.environment, **module.environment},
        working_folder=module.working_folder or "{package}",
        checks=checks,
    )


def _check(told: PackageCommand, start: PackageCommand) -> Check:
    """What the package asks of its module, which has the time until it works that its start may take."""
    variables = [f"{name}={value}" for name, value in sorted(told.environment.items())]
    command = ("/usr/bin/env", *variables, *told.command) if variables else told.command
    return Check(CheckKind.COMMAND, command=command, timeout_s=told.timeout_s, grace_s=start.timeout_s)


def using(picture: Mirror, record: rec.WorkloadRecord, *, retry: bool) -> tuple[tuple[Compare, ...], tuple[Put, ...]]:
    """What must not have changed when a workload begins to use packages: that they are there, and stay.

    retry: that a version was given up is forgotten with it.
    """
    entries = {each.key: picture.packages.get(each.key) for each in needed_by(record)}
    compares = tuple(
        unchanged(rec.PACKAGES + key, entry.mod_revision if entry else 0) for key, entry in entries.items()
    )
    if not retry:
        return compares, ()
    forgiven = tuple(
        Put(rec.PACKAGES + key, rec.encode(replace(entry.record, failed={})))
        for key, entry in entries.items()
        if entry is not None and entry.record.failed
    )
    return compares, forgiven


def check_can_be_had(picture: Mirror, manifest: Manifest) -> None:
    """Refuse a package whose dependencies were not pushed before it, or contradict each other. Raises OutliveError."""
    records = [entry.record for entry in picture.packages.values() if not entry.record.removing]
    own = Known(manifest.name, manifest.parsed_version, "", manifest.wants)
    exactly = Wanted(manifest.name, parse_range(manifest.version))
    others = [each for each in _known(records) if (each.name, each.version) != (own.name, own.version)]
    resolve([exactly], [*others, own])
