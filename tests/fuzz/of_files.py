"""What people write: workload, agent and package files, libvirt domains, addresses, versions, policies."""

from collections.abc import Callable
from pathlib import Path

from outlive.cluster.policies import KEYS, Policies, changed
from outlive.cluster.versions import parse_range, parse_version, parse_wanted
from outlive.config.agent_file import AgentFileError, parse_agent
from outlive.config.domain import import_domain
from outlive.config.domain_xml import DomainInvalid
from outlive.config.package_file import PackageFileError, parse_package
from outlive.config.store_address import StoreAddressInvalid, parse_store
from outlive.config.toml_writer import toml_text
from outlive.config.workload_file import WorkloadFileError, parse_workload, to_document
from outlive.errors import UsageInvalid
from outlive.network.address import parse as parse_address
from outlive.network.errors import AddressInvalid

from .target import Judge, Target, each

ROOT = Path(__file__).parents[2]
AGENT = b"""host = "a"
address = "FD00:0::1"
port = 7000
store = "sqlite:///srv/store.db"
[cluster]
id = "5f0c3f9ad1b2e47c"
key_file = "/etc/key"
[labels]
disk = "ssd"
[capacity]
cpus = 4
memory_mib = 8192
[[datastore]]
name = "shared"
path = "/srv/shared"
[[fencing.method]]
name = "board"
agent = "fence_ipmilan"
options = { lanplus = "1" }
host.b = { ip = "10.0.0.2" }
"""
LINES = (
    b"etcds://[fd00::1]:2379,etcd-2:2380/outlive/lab", b"sqlite:///var/lib/outlive/store.db", b"10.77.0.9/24",
    b"fd00::7/64", b">=1.2, <2, ~1.2.3", b"^1.2.*", b"1.2.3-rc.1.x", b"web@^1.2", b"0.5, 2, 6, 14, 30",
)  # fmt: skip


def files(*patterns: str) -> Callable[[], list[bytes]]:
    return lambda: [path.read_bytes() for pattern in patterns for path in sorted(ROOT.glob(pattern))]


def judge_workload(data: bytes) -> None:
    workload = parse_workload(data)
    assert parse_workload(toml_text(to_document(workload))) == workload


def judge_domain(data: bytes) -> None:
    import_domain(data, on="shared")


def as_text(parse: Callable[[str], object]) -> Judge:
    return lambda data: parse(data.decode(errors="surrogateescape"))


LINE_REFUSALS = (StoreAddressInvalid, AddressInvalid, UsageInvalid)
judge_line = each(
    *(as_text(parse) for parse in (parse_store, parse_address, parse_range, parse_version, parse_wanted)),
    *(as_text(lambda text, key=key: changed(Policies(), {key: text})) for key in KEYS),  # type: ignore[misc]
    refusals=LINE_REFUSALS,
)

TARGETS = (
    Target("file-workload", judge_workload, files("examples/*.toml"), (WorkloadFileError,), text=True),
    Target("file-agent", parse_agent, lambda: [AGENT], (AgentFileError,), text=True),
    Target("file-package", parse_package, files("examples/packages/*/package.toml"), (PackageFileError,), text=True),
    Target("file-domain", judge_domain, files("tests/config/domains/*.xml"), (DomainInvalid,), text=True),
    Target("file-line", judge_line, lambda: LINES, LINE_REFUSALS, text=True, most_bytes=2000),
)
