"""What a package says of its program goes into the workload: how it starts, and what then tells whether it works."""

from dataclasses import replace

from immutables import Map

from outlive.api.choosing import AS_IS, chosen
from outlive.cluster import records as rec
from outlive.cluster.mirror import Entry, Mirror
from outlive.cluster.package import PackageCommand
from outlive.cluster.pushed import PackageRecord, PackageUse
from outlive.cluster.workload import Check, CheckKind, Module, Readiness, Workload

APP = PackageRecord(
    "app",
    "1.0.0",
    "a" * 64,
    start=PackageCommand(("{package}/bin/serve", "--fast"), timeout_s=45.0),
    check=PackageCommand(("{package}/bin/check",), timeout_s=5.0, environment={"QUIET": "1"}),
)
OWN = Check(CheckKind.TCP, port=80)


def module_of(module: Module, package: PackageRecord = APP) -> Module:
    picture = Mirror(packages=Map({package.key: Entry(package, 1, 1)}))
    wanted = Workload("web", (module,), package=PackageUse("app", "^1"))
    [found] = chosen(picture, wanted, None, AS_IS).modules
    return found


def test_a_module_without_a_command_is_started_and_checked_as_its_package_says() -> None:
    found = module_of(Module("main", ()))
    assert (found.command, found.working_folder) == (("{package}/bin/serve", "--fast"), "{package}")
    asked = Check(CheckKind.COMMAND, ("/usr/bin/env", "QUIET=1", "{package}/bin/check"), timeout_s=5.0, grace_s=45.0)
    assert found.checks == (asked,)


def test_a_line_that_tells_that_it_runs_does_not_replace_the_packages_check() -> None:
    assert len(module_of(Module("main", (), readiness=Readiness("listening"))).checks) == 1


def test_a_module_with_a_check_or_a_command_of_its_own_is_not_asked_the_packages() -> None:
    assert module_of(Module("main", (), checks=(OWN,))).checks == (OWN,)
    assert module_of(Module("main", ("/bin/own",))).checks == ()
    assert module_of(Module("main", ()), replace(APP, check=None)).checks == ()


def test_what_was_chosen_is_the_same_when_it_is_written_and_read() -> None:
    record = rec.WorkloadRecord(Workload("web", (module_of(Module("main", ())),)))
    assert rec.decode(rec.WORKLOADS + "web", rec.encode(record)) == record
