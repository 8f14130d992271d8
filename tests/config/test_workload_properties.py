"""Any workload survives being written; schema and reader agree; no input does anything but be read or be told."""

import copy
import re
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlive.cluster.host import Capacity
from outlive.cluster.pushed import PackageUse
from outlive.cluster.workload import (
    Apart,
    Check,
    CheckKind,
    Limits,
    Module,
    OnAfterLimit,
    OnIsolation,
    PlacementRules,
    Readiness,
    RestorePolicy,
    UpgradePolicy,
    VirtualIP,
    Workload,
)
from outlive.config.module_shape import SIGNALS
from outlive.config.placeholders import used
from outlive.config.toml_writer import toml_text
from outlive.config.workload_file import (
    WorkloadFileError,
    parse_workload,
    to_document,
    workload_from_document,
    workload_schema,
)
from outlive.network.address import parse as parse_address
from outlive.network.errors import AddressInvalid

SCHEMA = jsonschema.Draft7Validator(workload_schema())

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True)
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
SECONDS = st.floats(0.1, 3600)
COUNTS = st.integers(1, 1000)
LABELS = st.dictionaries(
    st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,5}[A-Za-z0-9])?", fullmatch=True),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8),
    max_size=3,
)
VIRTUAL_IPS = st.builds(
    VirtualIP,
    st.builds("10.77.{}.{}/24".format, st.integers(0, 255), st.integers(1, 254))
    | st.integers(1, 2**64 - 1).map(lambda host: f"{ip_address(0xFD00 << 112 | host)}/64"),
    st.none() | st.sampled_from(["eth0", "br-lan", "bond0.100"]),
)


def words(braces: tuple[str, ...]) -> st.SearchStrategy[str]:
    """Text of any kind, with those words in braces that may be used."""
    special = ['{"a": {"b": 1}}', "${x:-y}", "{{print}}", "{", "}}", "", *(f"{{{word}}}/x" for word in braces)]
    return st.sampled_from(special) | st.text(CHARACTERS, max_size=8).filter(lambda text: not used(text))


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    data_on = draw(st.none() | NAMES)
    virtual_ips = draw(
        st.lists(VIRTUAL_IPS, max_size=3, unique_by=lambda virtual_ip: virtual_ip.address.partition("/")[0])
    )
    package = draw(st.none() | st.builds(PackageUse, NAMES, st.sampled_from(["", "1.2.3", "^1.2", ">=1.2, <2", "1.*"])))
    braces = (
        "host",
        "workload",
        "generation",
        *["data"] * (data_on is not None),
        *["address"] * bool(virtual_ips),
        *["package"] * (package is not None),
    )
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    name = draw(NAMES)
    sites = draw(st.lists(NAMES, max_size=3, unique=True))
    others = draw(st.lists(NAMES.filter(lambda other: other != name), max_size=4, unique=True))
    cut, company = draw(st.integers(0, len(others))), draw(st.sampled_from(["", "prefer_"]))
    return Workload(
        name=name,
        after=tuple(draw(st.lists(NAMES.filter(lambda other: other != name), max_size=2, unique=True))),
        modules=tuple(draw(modules(name, names[:place], words(braces), braces)) for place, name in enumerate(names)),
        after_limit_s=draw(st.floats(1, 86400)),
        on_after_limit=draw(st.sampled_from(OnAfterLimit)),
        priority=draw(st.integers(0, 1000)),
        on_isolation=draw(st.none() | st.sampled_from(OnIsolation)),
        resources=Capacity(draw(st.floats(0, 64)), draw(st.integers(0, 4096))),
        placement=draw(
            st.builds(
                PlacementRules,
                st.just(tuple(sites)),
                st.lists(NAMES, max_size=3, unique=True).map(tuple),
                LABELS,
                st.lists(st.sampled_from(sites) if sites else NAMES, max_size=2, unique=True).map(tuple),
                st.sampled_from(Apart) if others[cut:] and not company else st.just(Apart.HOST),
                group=st.just("") | NAMES,
                **{
                    f"{company}together_with": st.just(tuple(others[:cut])),
                    f"{company}apart_from": st.just(tuple(others[cut:])),
                },
            )
        ),
        virtual_ips=tuple(virtual_ips),
        data_on=data_on,
        package=package,
        upgrade=draw(st.builds(UpgradePolicy, SECONDS, st.floats(0, 3600))) if package else UpgradePolicy(),
    )


@st.composite
def modules(
    draw: st.DrawFn, name: str, earlier: list[str], word: st.SearchStrategy[str], braces: tuple[str, ...]
) -> Module:
    program = st.sampled_from(
        ["/usr/bin/x", "x", *["{data}/bin/x"] * ("data" in braces), *["{package}/x"] * ("package" in braces)]
    )
    command = st.tuples(program, st.lists(word, max_size=3)).map(lambda parts: (parts[0], *parts[1]))
    times = {"interval_s": SECONDS, "timeout_s": SECONDS, "failures": COUNTS, "grace_s": st.floats(0, 86400)}
    address = st.sampled_from(["127.0.0.1", "::1", *["{address}"] * ("address" in braces)])
    port = st.integers(1, 65535)
    checks = st.one_of(
        st.builds(Check, st.just(CheckKind.COMMAND), command, **times),
        st.builds(Check, st.just(CheckKind.TCP), address=address, port=port, **times),
        st.builds(
            Check,
            st.just(CheckKind.HTTP),
            address=address,
            port=port,
            path=st.just("/") | st.from_regex(r"/[!-~]{0,8}", fullmatch=True),
            status=st.integers(100, 599),
            **times,
        ),
    )
    return Module(
        name=name,
        command=draw(command | st.just(()) if "package" in braces else command),
        environment=draw(
            st.dictionaries(st.from_regex("[A-Za-z_][A-Za-z0-9_]{0,4}", fullmatch=True), word, max_size=2)
        ),
        working_folder=draw(st.sampled_from([None, "/srv", *["{data}/x"] * ("data" in braces)])),
        user=draw(st.sampled_from([None, "redis", "1000", "www-data"])),
        limits=draw(
            st.builds(
                Limits,
                st.none() | st.floats(0.01, 64),
                st.none() | st.integers(1, 4096),
                st.none() | COUNTS,
                st.none() | COUNTS,
            )
        ),
        checks=tuple(draw(st.lists(checks, max_size=2))),
        readiness=draw(st.none() | st.builds(Readiness, st.sampled_from(["^ready$", "a|b", "[0-9]+"]), SECONDS)),
        restore=draw(st.builds(RestorePolicy, st.integers(0, 1000), SECONDS, st.floats(0, 10), st.floats(10, 3600))),
        after=tuple(draw(st.lists(st.sampled_from(earlier), unique=True) if earlier else st.just([]))),
        stop_signal=draw(st.sampled_from(SIGNALS)),
        stop_grace_s=draw(st.floats(0, 3600)),
    )


@settings(deadline=None, max_examples=60)
@given(workloads())
def test_a_workload_that_was_written_reads_back_as_itself_and_fits_the_schema(workload: Workload) -> None:
    document = to_document(workload)
    SCHEMA.validate(document)
    assert workload_from_document(document) == workload
    assert parse_workload(toml_text(document)) == workload


def refusal(read: Callable[[], Workload]) -> WorkloadFileError | None:
    try:
        read()
    except WorkloadFileError as error:
        return error
    return None


NASTY: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    70000,
    2**70,
    "",
    "x",
    "/x",
    "{data}",
    "{foo}",
    "../x",
    "A B",
    "10.0.0.9",
    "a" * 70,
    "\0",
    "vm",
    "tcp",
    "http",
    "command",
    "(",
    [],
    ["x"],
    ["x", "x"],
    [1],
    [[]],
    [{}],
    {},
    {"x": 1},
    {"m": {}},
    {"kind": "tcp"},
]
ONLY_READING_KNOWS = re.compile(
    r"stands for nothing|but the workload has no|is no module of this file|makes a circle|names its own module"
    r"|names \S+ for the second time|is a relative path|is no regular expression|must not be (above|below)"
    r"|for a service, only for a vm|is for protection hot|not among the sites|names the workload itself"
    r"|is no IP address|does not begin with an IP address|has no prefix length"
    r"|is for a workload with a package|\.command is missing|but the workload names no package"
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a document, with each of its keys or indexes."""
    found: list[tuple[Any, Any]] = []
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        found.append((value, key))
        if isinstance(inner, dict | list):
            found += places(inner)
    return found


@settings(deadline=None, max_examples=150)
@given(workloads(), st.data())
def test_the_schema_refuses_what_the_reader_refuses_and_nothing_else(workload: Workload, data: st.DataObject) -> None:
    document = copy.deepcopy(to_document(workload))
    for _ in range(data.draw(st.integers(1, 2))):
        container, key = data.draw(st.sampled_from(places(document)))
        change = data.draw(st.sampled_from(["replace", "remove", "add"]))
        if change == "remove":
            del container[key]
        elif change == "add" and isinstance(container, dict):
            container[data.draw(st.sampled_from(["x", "port", "path", "command", "A B", "cpus", "kind"]))] = "x"
        else:
            container[key] = copy.deepcopy(data.draw(st.sampled_from(NASTY)))
        if not document:
            break
    refused = refusal(lambda: workload_from_document(document))
    if refused is None:
        SCHEMA.validate(document)
    elif SCHEMA.is_valid(document):
        assert all(ONLY_READING_KNOWS.search(problem.sentence) for problem in refused.problems), refused.cause


LINES = st.sampled_from(
    [
        'name = "a"',
        'kind = "vm"',
        "name = 1",
        "[module]",
        "[module.m]",
        "[[module]]",
        "[[module.m]]",
        'command = ["x"]',
        "command = 'x'",
        "command = [",
        "after = ['m']",
        "[[virtual_ip]]",
        "[virtual_ip]",
        "address = '10.0.0.1/24'",
        "[",
        "port = 0x10",
        "[[module.m.check]]",
        "module.m.command = []",
        "environment = {A = 1}",
        '"""',
        "x = nan",
        "line = '('",
        "[module.m.readiness]",
        "kind = 'tcp'",
        "cpus = 1e400",
        "memory_mib = 0b1",
        "x = 07:32:00",
        "[module.m.limits]",
        "]",
        '"\\u0000" = 1',
        "'' = 1",
        "user = '{x}'",
        "[resources]",
        "priority = -0",
        "resources = 1",
        "module = [1]",
        "\x00",
    ]
)


@settings(deadline=None, max_examples=300)
@given(st.lists(LINES, max_size=12).map("\n".join) | st.text() | st.binary())
def test_any_text_or_bytes_are_read_or_told(raw: str | bytes) -> None:
    refused = refusal(lambda: parse_workload(raw, "f"))
    if refused is not None:
        assert refused.problems
        assert all(problem.sentence and problem.fix for problem in refused.problems)
        assert refused.cause.count("\n") == len(refused.problems) - 1


@settings(deadline=None, max_examples=100)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.text() | st.sampled_from(["name", "module", "m", "command", "check"]), inner, max_size=3
            )
        ),
    )
)
def test_any_document_is_read_or_told(document: Any) -> None:
    with pytest.raises(WorkloadFileError):
        workload_from_document({"module": {"m": document}, "virtual_ip": document, "x": document})
    with pytest.raises(WorkloadFileError):
        workload_from_document(document)


@settings(deadline=None, max_examples=300)
@given(
    st.from_regex(r"[0-9a-f:.]{1,12}/[0-9]{1,3}", fullmatch=True)
    | st.builds("{}/{}".format, st.ip_addresses(), st.integers(0, 130))
    | st.builds("10.0.0.{}/{}".format, st.integers(0, 255), st.integers(20, 33))
    | st.sampled_from(
        ["127.0.0.1/8", "224.0.0.1/4", "::/64", "::1/128", "ff02::1/64", "::ffff:1.2.3.4/96", "0.0.0.0/0"]
    )
)
def test_virtual_ips_are_judged_as_the_network_judges_them(address: str) -> None:
    document = {"name": "a", "module": {"m": {"command": ["x"]}}, "virtual_ip": [{"address": address}]}
    try:
        expected = parse_address(address)
    except AddressInvalid:
        with pytest.raises(WorkloadFileError):
            workload_from_document(document)
    else:
        (virtual_ip,) = workload_from_document(document).virtual_ips
        assert parse_address(virtual_ip.address) == expected
