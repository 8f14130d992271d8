"""What the API's answers say, as types: mypy holds the handlers to them, and the OpenAPI document is made of them.

Nouns that have a file of their own in `cluster` are taken from there. Nothing is computed here. A list comes in pages:
its `next` is the cursor of the page after, null on the last one.
"""

from typing import Any, NotRequired, TypedDict

from outlive.cluster import records as rec
from outlive.cluster.emptying import Leaving
from outlive.cluster.fence import EndProof
from outlive.cluster.outlook import HostOutlook, Outlook, WorkloadOutlook
from outlive.cluster.overlay import Network, Outside
from outlive.cluster.package import PackageCommand
from outlive.cluster.policies import Policies
from outlive.cluster.records import FenceRecord
from outlive.cluster.what_if import Decision, Unplaced


class Problem(TypedDict):
    """Why something was not done (RFC 9457): title is the sentence, detail its cause, remedy what to do now.

    id: the word that scripts may match.  exit_code: that of a command that ends with it.
    """

    type: str
    id: str
    title: str
    detail: str
    remedy: str
    exit_code: int


class Health(TypedDict):
    """The agent is alive: its host and version, and whether its picture of the store is fresh."""

    host: str
    version: str
    store_reachable: bool


class Ready(TypedDict):
    """This host can act for workloads."""

    host: str
    ready: bool


class Cluster(TypedDict):
    """Everything, as of a revision of the store, as this host sees it."""

    host: str
    revision: int
    outlook: Outlook


class Hosts(TypedDict):
    """Hosts in the order of their names."""

    hosts: list[HostOutlook]
    next: str | None


class Workloads(TypedDict):
    """Workloads in the order of their names."""

    workloads: list[WorkloadOutlook]
    next: str | None


class OneWorkload(TypedDict):
    """One workload: how it stands, what was asked, where it is placed, what its host reports.

    machine, replica: of a machine only; null where nothing is known of them.
    """

    outlook: WorkloadOutlook
    record: rec.WorkloadRecord
    placement: rec.PlacementRecord | None
    report: rec.ReportRecord | None
    machine: NotRequired[dict[str, Any] | None]
    replica: NotRequired[dict[str, Any] | None]


class Changed(TypedDict):
    """What a wish changed. event: recorded as its cause.  commands: of a dry run, what the leader would decide.

    notes: what a person should know of a wish that was granted all the same.
    """

    workload: str
    changed: bool
    event: NotRequired[str]
    revision: NotRequired[int]
    commands: NotRequired[list[dict[str, Any]]]
    notes: NotRequired[list[str]]


class Operations(TypedDict):
    """Operations in the order of their ids."""

    operations: list[rec.OperationRecord]
    next: str | None


class Asked(TypedDict):
    """An operation as it was asked for or cancelled."""

    operation: rec.OperationRecord
    event: NotRequired[str]
    commands: NotRequired[list[dict[str, Any]]]


class Events(TypedDict):
    """Events, the oldest first."""

    events: list[rec.EventRecord]
    next: str | None


class Why(TypedDict):
    """The chain of causes of a workload's last change, the first cause first."""

    workload: str
    chain: list[rec.EventRecord]


class UsedNetwork(TypedDict):
    """A virtual network and the machines on it."""

    name: str
    vni: int
    mtu: int
    subnet: str
    outside: list[Outside]
    workloads: list[str]


class Networks(TypedDict):
    """Networks in the order of their names."""

    networks: list[UsedNetwork]
    next: str | None


class NetworkChanged(TypedDict):
    """A network as it is now, or would be; removed, as it was."""

    network: Network
    changed: bool
    commands: NotRequired[list[dict[str, Any]]]


class Package(TypedDict):
    """A version of a package.

    hosts: those that shall keep it; held_by: those that say they have it; troubles: why others do not have it.
    used_by: what would not run without it; failed: with which workloads it was given up, and why.
    """

    name: str
    version: str
    id: str
    requires: dict[str, str]
    size_bytes: int
    copies: int
    hosts: list[str]
    held_by: list[str]
    troubles: dict[str, str]
    used_by: list[str]
    failed: dict[str, str]
    removing: bool
    pushed_by: str


class PackageShown(Package):
    """The same with what starts and checks a module, and with its manifest where this host has it."""

    start: PackageCommand | None
    check: PackageCommand | None
    manifest: dict[str, Any] | None


class Packages(TypedDict):
    """Packages in the order of their names."""

    packages: list[Package]
    next: str | None


class PackagePushed(TypedDict):
    """A package as it is kept now."""

    package: Package
    changed: bool
    event: NotRequired[str]


class PackageRemoved(TypedDict):
    """A version of a package that is to go."""

    package: str
    changed: bool
    event: NotRequired[str]
    commands: NotRequired[list[dict[str, Any]]]


class PoliciesShown(TypedDict):
    """The policies that hold. revision 0: nobody has set any.  problem: why what was set last cannot be read."""

    policies: Policies
    revision: int
    problem: str


class PoliciesChanged(TypedDict):
    """The policies as they are now, or would be."""

    policies: Policies
    changed: bool
    event: NotRequired[str]
    revision: NotRequired[int]
    commands: NotRequired[list[dict[str, Any]]]


class Maintenance(TypedDict):
    """How far the emptying of a host is. record: the wish; null: there is none.

    workloads, standbys: what is there.  plan: what becomes of each.  done: nothing is left to wait for.
    """

    host: str
    record: rec.MaintenanceRecord | None
    workloads: list[str]
    standbys: list[str]
    done: bool
    plan: list[Leaving]


class Maintenances(TypedDict):
    """The hosts in maintenance in the order of their names."""

    hosts: list[Maintenance]
    next: str | None


class MaintenanceChanged(Maintenance):
    """The same after a wish. event: that of the wish, '' for none.  commands: of one that was only tried out."""

    changed: bool
    event: str
    commands: list[dict[str, Any]]


class Fences(TypedDict):
    """How hosts are fenced. methods: those of the agent that answers, by name, in their order."""

    proof_of_end: EndProof
    fences: list[FenceRecord]
    methods: list[str]


class ConfirmedDead(TypedDict):
    """Whose end is taken on a person's word, or would be. workloads: what runs twice if that is wrong.

    before: another machine has the host's name by now, and the word is about the one before it.
    """

    host: str
    before: bool
    changed: bool
    workloads: list[str]
    event: NotRequired[str]
    revision: NotRequired[int]


class Pressed(TypedDict):
    """A button was pressed on the host where the machine runs."""

    workload: str
    host: str
    pressed: str


class Taken(TypedDict):
    """So many bytes were typed."""

    taken: int


class Checkpoints(TypedDict):
    """A workload's checkpoints, the newest first. on: the datastore where new ones are made; '' where none are."""

    workload: str
    on: str
    checkpoints: list[dict[str, Any]]
    next: str | None


class OwnCheckpoints(TypedDict):
    """The same as one host reads them, all at once."""

    workload: str
    on: str
    checkpoints: list[dict[str, Any]]


class WhatIf(TypedDict):
    """What would be decided if hosts died. leader: who would decide; by: who tells it.

    decisions: in their order.  without: what would have no place, the more important first.
    whole: all was decided; otherwise the time was over before.  commands: the very ones that were decided.
    """

    lost: list[str]
    leader: str | None
    by: str
    decisions: list[Decision]
    without: list[Unplaced]
    whole: bool
    commands: list[dict[str, Any]]


class Decided(TypedDict):
    """Commands of a leader, in order, none of which was performed."""

    commands: list[dict[str, Any]]
