"""An agent's file becomes the configuration that it says, or one error with every mistake, its line and its fix."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlive.cluster.host import Capacity
from outlive.cluster.timing import Timing, check
from outlive.config.agent_file import (
    AgentConfig,
    AgentFileError,
    ClusterMembership,
    DatastoreFolder,
    TlsFiles,
    agent_document,
    agent_schema,
    parse_agent,
    read_agent,
)
from outlive.config.agent_shape import TIMING
from outlive.config.store_address import SqliteAddress
from outlive.config.toml_writer import toml_text
from outlive.errors import UsageInvalid

SCHEMA = jsonschema.Draft7Validator(agent_schema())
CLUSTER = ClusterMembership("5f0c3f9ad1b2e47c")
START = 'host = "a"\naddress = "10.77.0.1"\ncluster.id = "5f0c3f9ad1b2e47c"\n'
"""Three lines that are right; a case's own lines begin on the fourth."""

EVERYTHING = """
host = "a"
site = "north"
address = "FD00:0::1"
port = 7000
peer_port = 7001
data_folder = "/srv/outlive"
run_folder = "/run/o"
store = "sqlite:///srv/store.db"
cgroup_root = "/sys/fs/cgroup/outlive"

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
path = "/mnt/shared"

[[datastore]]
name = "other"
path = "/mnt/other"

[tls]
ca = "/etc/ca.pem"
certificate = "/etc/a.pem"
key = "/etc/a.key"

[timing]
heartbeat_s = 0.5
claim_ttl_s = 8
witnesses = 2
"""


def test_every_key_is_read() -> None:
    config = parse_agent(EVERYTHING)
    assert config == AgentConfig(
        host="a",
        address="fd00::1",
        cluster=ClusterMembership("5f0c3f9ad1b2e47c", Path("/etc/key")),
        site="north",
        port=7000,
        peer_port=7001,
        data_folder=Path("/srv/outlive"),
        run_folder=Path("/run/o"),
        store="sqlite:///srv/store.db",
        cgroup_root=Path("/sys/fs/cgroup/outlive"),
        labels={"disk": "ssd"},
        capacity=Capacity(4.0, 8192),
        datastores=(DatastoreFolder("shared", Path("/mnt/shared")), DatastoreFolder("other", Path("/mnt/other"))),
        tls=TlsFiles(Path("/etc/ca.pem"), Path("/etc/a.pem"), Path("/etc/a.key")),
        timing=Timing(heartbeat_s=0.5, claim_ttl_s=8, witnesses=2),
    )
    assert config.store_address == SqliteAddress(Path("/srv/store.db"))


def test_a_host_an_address_and_a_cluster_are_enough() -> None:
    config = parse_agent(START.encode())
    assert config == AgentConfig("a", "10.77.0.1", CLUSTER)
    assert config.data_folder == Path("/var/lib/outlive")
    assert config.run_folder == Path("/run/outlive")
    assert config.store_address == SqliteAddress(Path("/var/lib/outlive/store.sqlite"))
    assert config.timing == Timing()
    assert agent_document(config) == {
        "host": "a",
        "address": "10.77.0.1",
        "cluster": {"id": CLUSTER.id, "key_file": "/etc/outlive/cluster.key"},
    }


def test_a_store_with_four_slashes_is_the_same_file() -> None:
    assert parse_agent(START + 'store = "sqlite:////a/b"').store_address == SqliteAddress(Path("/a/b"))


MISTAKES = {
    "missing": ("", 1, "address", "is missing", "Write address = …: an IP address."),
    "unknown key": (START + "hots = 1", 4, "hots", "is no key of this file", "Write host."),
    "bad name": ('host = "A"', 1, "host", 'not "A"', "Use 1 to 63"),
    "address with prefix": ('address = "10.0.0.1/24"', 1, "address", "is more than an IP address", "without a prefix"),
    "address that is none": ('address = "10.0.0"', 1, "address", "is no IP address", "such as 10.77.0.1"),
    "address of all": ('address = "0.0.0.0"', 1, "address", "is the unspecified address", "other hosts reach"),
    "port": (START + "port = 0", 4, "port", "must be a whole number from 1 to 65535, not 0", "in this range"),
    "relative folder": (START + 'data_folder = "x"', 4, "data_folder", "must be the absolute path", "from the root on"),
    "run folder too long for sockets": (
        START + f'run_folder = "/{"x" * 80}"',
        4,
        "run_folder",
        "must be",
        "At most 80",
    ),
    "another store": (START + 'store = "redis://h:2379"', 4, "store", "must be sqlite:///PATH, etcd://", "sqlite:///"),
    "store with a user": (START + 'store = "etcd://u:p@h"', 4, "store", "has a user in it", "etcd://HOST"),
    "store with a port that is none": (START + 'store = "etcd://h:0"', 4, "store", "a colon and a port", "HOST:2379"),
    "store with an endpoint twice": (START + 'store = "etcd://h,h:2379"', 4, "store", "endpoint twice", "HOST:2379"),
    "store with an odd prefix": (START + 'store = "etcd://h//x"', 4, "store", "has the prefix '//x'", "/PREFIX"),
    "store TLS in part": (
        START + 'store = "etcds://h"\n[store_tls]\nkey = "/k"',
        5,
        "store_tls",
        "only one of",
        "Name both, or none.",
    ),
    "store TLS without TLS": (
        START + 'store = "etcd://h"\n[store_tls]\nca = "/c"',
        5,
        "store_tls",
        "is of no use",
        "correct `store`",
    ),
    "store login without etcd": (
        START + '[store_login]\nuser = "o"\npassword_file = "/p"',
        4,
        "store_login",
        "is of no use",
        "correct `store`",
    ),
    "store login for all to read": (
        START + 'store = "etcd://127.0.0.1,h"\n[store_login]\nuser = "o"\npassword_file = "/p"',
        5,
        "store_login",
        "for all to read",
        "without_tls = true",
    ),
    "store compaction": (START + 'store_compaction = "ever"', 4, "store_compaction", "always", "Write"),
    "store login in part": (
        START + 'store = "etcds://h"\n[store_login]\nuser = "o"',
        5,
        "store_login.password_file",
        "is missing",
        "Write",
    ),
    "store without a path": (START + 'store = "sqlite:///"', 4, "store", "must be sqlite:///PATH", "absolute path"),
    "cluster id": ('cluster.id = "5F0C3F9AD1B2E47C"', 1, "cluster.id", "16 hexadecimal digits", "Copy it"),
    "capacity in part": (START + "[capacity]\ncpus = 1", 4, "capacity.memory_mib", "is missing", "Write memory_mib"),
    "capacity of nothing": (START + "[capacity]\ncpus = 0\nmemory_mib = 1", 5, "capacity.cpus", "above 0", "range"),
    "datastore as a table": (START + "[datastore]", 4, "datastore", "must be a list", "Write [[datastore]]"),
    "datastore twice": (
        START + '[[datastore]]\nname = "s"\npath = "/a"\n[[datastore]]\nname = "s"\npath = "/b"',
        8,
        "datastore[1].name",
        "is the same as an earlier datastore's",
        "Give it its own.",
    ),
    "tls in part": (START + '[tls]\nca = "/a"\nkey = "/b"', 4, "tls.certificate", "is missing", "certificate"),
    "label": (START + '[labels]\ndisk = "a\\nb"', 5, "labels.disk", "must be text of at most 63", "control characters"),
    "timing that is unsafe": (
        START + "[timing]\nprobe_s = 1\nclaim_ttl_s = 4\ngive_up_s = 3",
        4,
        "timing",
        "breaks what safety rests on: give_up_s must be under half of claim_ttl_s",
        "Change it",
    ),
    "timing that one key makes unsafe": (
        START + "[timing]\nrenew_s = 2",
        5,
        "timing.renew_s",
        "breaks what safety rests on: a claim must allow three renewals",
        "Change it",
    ),
    "timing that is no time": (START + "[timing]\ntick_s = 0", 5, "timing.tick_s", "must be a number above 0", "range"),
    "mistake of writing": (START + "port = x", 4, "port", "This is no value.", "Write text in quotes"),
}


@pytest.mark.parametrize(("text", "line", "path", "sentence", "fix"), MISTAKES.values(), ids=MISTAKES.keys())
def test_each_mistake_has_its_line_path_sentence_and_fix(
    text: str, line: int, path: str, sentence: str, fix: str
) -> None:
    with pytest.raises(AgentFileError) as caught:
        parse_agent(text, "agent.toml")
    (problem,) = [problem for problem in caught.value.problems if problem.path == path]
    assert problem.line == line
    assert sentence in problem.sentence
    assert fix in problem.fix
    if text.startswith(START):
        assert len(caught.value.problems) == 1


def test_the_error_tells_everything_and_ends_with_the_usage_code() -> None:
    with pytest.raises(AgentFileError) as caught:
        parse_agent("port = 0\n[cluster]\n", "agent.toml")
    error = caught.value
    assert isinstance(error, UsageInvalid)
    assert (error.id, error.exit_code) == ("agent-file.invalid", 2)
    assert error.sentence == "agent.toml is no valid agent file: 4 mistakes."
    assert len(error.cause.splitlines()) == 4


def test_a_file_is_read_from_disk_or_told_as_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(EVERYTHING)
    assert read_agent(path) == parse_agent(EVERYTHING)
    with pytest.raises(AgentFileError, match="cannot be read"):
        read_agent(tmp_path / "missing.toml")


def test_all_of_timing_can_be_configured_and_its_defaults_are_right() -> None:
    assert {key.name for key in TIMING.keys} == {field.name for field in dataclasses.fields(Timing)}
    assert all(key.default == getattr(Timing(), key.name) for key in TIMING.keys)
    document = agent_document(AgentConfig("a", "10.77.0.1", CLUSTER))
    SCHEMA.validate({**document, "timing": dataclasses.asdict(Timing())})


NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True)
PATHS = st.from_regex(r"(/[A-Za-z0-9 ._é-]{1,6}){1,3}", fullmatch=True).map(Path)
PORTS = st.integers(1, 65535)
CONFIGS = st.builds(
    AgentConfig,
    host=NAMES,
    address=st.sampled_from(["10.77.0.1", "fd00::1", "127.0.0.1", "::1", "192.168.255.254"]),
    cluster=st.builds(ClusterMembership, st.from_regex("[0-9a-f]{16}", fullmatch=True), PATHS),
    site=NAMES,
    port=PORTS,
    peer_port=PORTS,
    data_folder=PATHS,
    run_folder=PATHS,
    store=st.just("") | PATHS.map("sqlite://{}".format),
    cgroup_root=st.none() | PATHS,
    labels=st.dictionaries(NAMES, st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8), max_size=3),
    capacity=st.none() | st.builds(Capacity, st.floats(0.1, 512), st.integers(1, 2**20)),
    datastores=st.lists(
        st.builds(DatastoreFolder, NAMES, PATHS), max_size=3, unique_by=(lambda one: one.name, lambda one: one.path)
    ).map(tuple),
    tls=st.none() | st.builds(TlsFiles, PATHS, PATHS, PATHS),
    timing=st.builds(
        Timing, heartbeat_s=st.floats(0.05, 0.9), claim_ttl_s=st.integers(2, 60), witnesses=st.integers(0, 8)
    ).filter(lambda timing: not check(timing)),
)


@settings(deadline=None, max_examples=80)
@given(CONFIGS)
def test_a_configuration_that_was_written_reads_back_as_itself_and_fits_the_schema(config: AgentConfig) -> None:
    document = agent_document(config)
    SCHEMA.validate(document)
    assert parse_agent(toml_text(document)) == config


def refusal(read: Callable[[], Any]) -> AgentFileError | None:
    try:
        read()
    except AgentFileError as error:
        return error
    return None


LINES = st.sampled_from(
    [
        *('host = "a"', "address = '10.0.0.1'", "cluster.id = '0123456789abcdef'", "[cluster]", "[[cluster]]", "["),
        *("[timing]", "tick_s = inf", "claim_ttl_s = 2.0", "claim_ttl_s = 1e300", "witnesses = -1", "timing = 1"),
        *("[[datastore]]", "[datastore]", "name = 's'", "name = 1", "path = '/x'", "datastore = [1, {}]", '"""', "]"),
        *("port = 0xffff", "labels.x = 1", "[labels]", "'' = ''", "[capacity]", "cpus = nan", "store = 'sqlite:///'"),
        *(
            "[fencing]",
            "watchdog = '/dev/watchdog'",
            "watchdog_timeout_s = 60",
            "[[fencing.method]]",
            "agent = 'fence_x'",
        ),
        *("[fencing.method]", "command = ['/x', '{nobody}']", "status = [1]", "run_locks = true", "options = 3"),
        *("[fencing.method.host.a]", "[fencing.method.options]", "password = 'x'", "action = 'on'", "host = {a = 1}"),
    ]
)


@settings(deadline=None, max_examples=300)
@given(st.lists(LINES, max_size=12).map("\n".join) | st.text() | st.binary())
def test_any_text_or_bytes_are_read_or_told(raw: str | bytes) -> None:
    refused = refusal(lambda: parse_agent(raw, "f"))
    if refused is not None:
        assert refused.problems
        assert all(problem.sentence and problem.fix for problem in refused.problems)


EXAMPLES = Path(__file__).parents[2] / "docs" / "fencing.md"


def test_the_examples_of_fencing_are_valid() -> None:
    head = 'host = "a"\naddress = "10.77.0.1"\n[cluster]\nid = "5f0c3f9ad1b2e47c"\n'
    blocks = re.findall(r"```toml\n(.*?)```", EXAMPLES.read_text(), re.DOTALL)
    fencing = parse_agent(head + "".join(blocks)).fencing
    assert fencing.watchdog == Path("/dev/watchdog")
    assert [method.name for method in fencing.methods] == ["ipmi", "pdu"]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("[fencing]\nwatchdog = '/dev/watchdog'\nwatchdog_timeout_s = 3", "fencing.watchdog_timeout_s"),
        ("[[fencing.method]]\nname = 'x'", "fencing.method[0]"),
        ("[[fencing.method]]\nname = 'x'\nagent = 'fence_x'\nrun_locks = true", "fencing.method[0]"),
        ("[[fencing.method]]\nname = 'x'\ncommand = ['/x']", "fencing.method[0].status"),
        (
            "[[fencing.method]]\nname = 'x'\nagent = 'fence_x'\noptions.password = 'y'",
            "fencing.method[0].options.password",
        ),
        (
            "[[fencing.method]]\nname = 'x'\nagent = 'fence_x'\noptions.action = 'on'",
            "fencing.method[0].options.action",
        ),
        (
            "[[fencing.method]]\nname = 'x'\ncommand = ['/x', '{plug}']\nstatus = ['/x']",
            "fencing.method[0].command[1]",
        ),
        ("[[fencing.method]]\nname = 'x'\nrun_locks = true\n" * 2, "fencing.method[1].name"),
    ],
)
def test_a_way_to_fence_that_proves_nothing_or_tells_secrets_is_refused(text: str, path: str) -> None:
    head = 'host = "a"\naddress = "10.77.0.1"\n[cluster]\nid = "5f0c3f9ad1b2e47c"\n'
    refused = refusal(lambda: parse_agent(head + text))
    assert refused is not None
    assert path in [problem.path for problem in refused.problems]
