"""A workload file becomes the workload that it says, or one error with every mistake, its line and its fix."""

from pathlib import Path

import pytest

from outlive.cluster.host import Capacity
from outlive.cluster.workload import (
    Check,
    CheckKind,
    Limits,
    Module,
    OnIsolation,
    PlacementRules,
    Readiness,
    RestorePolicy,
    VirtualIP,
    Workload,
)
from outlive.config.problems import MOST_PROBLEMS, Problem
from outlive.config.workload_file import (
    WorkloadFileError,
    parse_workload,
    read_workload,
    to_document,
    workload_from_document,
)
from outlive.errors import UsageInvalid

EVERYTHING = """
name = "counter"
kind = "service"
protection = "cold"
priority = 7
on_isolation = "leave"
data_on = "shared"

[resources]
cpus = 1
memory_mib = 256.0

[placement]
sites = ["north"]
hosts = ["a", "b"]
labels = { disk = "ssd" }

[[virtual_ip]]
address = "10.77.0.100/24"
interface = "eth0"

[[virtual_ip]]
address = "FD00:0::100/64"

[module.redis]
command = ["/usr/bin/redis-server", "--bind", "{address}", ""]
environment = { A = "{data}/b", B = '{"a": 1}' }
working_folder = "{data}/x"
user = "redis"
after = ["other"]
stop_signal = "INT"
stop_grace_s = 2

[module.redis.limits]
cpus = 0.5
memory_mib = 128
processes = 10
open_files = 20

[module.redis.restore]
attempts = 0
window_s = 10
backoff_s = 1
backoff_most_s = 2

[module.redis.readiness]
line = "^ready (to|in)"
timeout_s = 3

[[module.redis.check]]
kind = "tcp"
address = "{address}"
port = 6379
interval_s = 0.5
timeout_s = 0.25
failures = 2
grace_s = 0

[[module.redis.check]]
kind = "http"
port = 80
path = "/health?x=1"
status = 204

[[module.redis.check]]
kind = "command"
command = ["check", "{host}"]

[module.other]
command = ["{data}/bin/other"]
"""


def problems_of(text: str | bytes) -> tuple[Problem, ...]:
    with pytest.raises(WorkloadFileError) as caught:
        parse_workload(text, "counter.toml")
    return caught.value.problems


def test_every_key_is_read() -> None:
    redis = Module(
        name="redis",
        command=("/usr/bin/redis-server", "--bind", "{address}", ""),
        environment={"A": "{data}/b", "B": '{"a": 1}'},
        working_folder="{data}/x",
        user="redis",
        limits=Limits(0.5, 128, 10, 20),
        checks=(
            Check(CheckKind.TCP, (), "{address}", 6379, interval_s=0.5, timeout_s=0.25, failures=2, grace_s=0.0),
            Check(CheckKind.HTTP, port=80, path="/health?x=1", status=204),
            Check(CheckKind.COMMAND, ("check", "{host}")),
        ),
        readiness=Readiness("^ready (to|in)", 3.0),
        restore=RestorePolicy(0, 10.0, 1.0, 2.0),
        after=("other",),
        stop_signal="INT",
        stop_grace_s=2.0,
    )
    workload = parse_workload(EVERYTHING)
    assert workload == Workload(
        name="counter",
        modules=(redis, Module("other", ("{data}/bin/other",))),
        priority=7,
        on_isolation=OnIsolation.LEAVE,
        resources=Capacity(1.0, 256),
        placement=PlacementRules(("north",), ("a", "b"), {"disk": "ssd"}),
        virtual_ips=(VirtualIP("10.77.0.100/24", "eth0"), VirtualIP("fd00::100/64")),
        data_on="shared",
    )
    assert isinstance(workload.resources.memory_mib, int)
    assert isinstance(workload.resources.cpus, float)
    assert workload_from_document(to_document(workload)) == workload


def test_a_name_and_a_command_are_enough() -> None:
    workload = parse_workload(b'name = "a"\nmodule.b.command = ["x"]\n')
    assert workload == Workload("a", (Module("b", ("x",)),))
    assert to_document(workload) == {
        "name": "a",
        "kind": "service",
        "protection": "cold",
        "module": {"b": {"command": ["x"]}},
    }


START = 'name = "a"\n[module.m]\ncommand = ["x"]\n'
"""Three lines that are right; a case's own lines begin on the fourth."""

MISTAKES = {
    "together with itself": (
        'name = "a"\nplacement.together_with = ["a"]\n[module.m]\ncommand = ["x"]',
        2,
        "placement.together_with[0]",
        "names the workload itself",
        "Remove it.",
    ),
    "together with what it is apart from": (
        START + '[placement]\ntogether_with = ["b", "c"]\napart_from = ["c"]',
        6,
        "placement.apart_from[0]",
        'names "c", which stands in together_with too',
        "Remove it from one of the two.",
    ),
    "affinity by another name": (
        START + '[placement]\nanti_affinity = ["b"]',
        5,
        "placement.anti_affinity",
        "is no key",
        "Write apart_from.",
    ),
    "unknown key": (START + "comand = 1", 4, "module.m.comand", "is no key of this table", "Write command."),
    "key of another system": (START + "depends_on = []", 4, "module.m.depends_on", "is no key", "Write after."),
    "key of another table": (
        START + "memory_mib = 1",
        4,
        "module.m.memory_mib",
        "is no key",
        "It belongs in [resources] or in [module.NAME.limits].",
    ),
    "unlike any key": (
        START + "[placement]\nqq = 1",
        5,
        "placement.qq",
        "is no key",
        "Remove it. Known here are sites, h",
    ),
    "unknown table": (START + "[modules.x]", 4, "modules", "is no key of this file", "Write module."),
    "missing name": ('[module.m]\ncommand = ["x"]', 1, "name", "is missing", "Write name ="),
    "missing modules": ('name = "a"', 1, "module", "is missing", "Write [module.NAME] with its keys."),
    "no modules": ('name = "a"\n[module]', 2, "module", "must not be without modules", "Write 1 to 64."),
    "missing command": ('name = "a"\n[module.m]', 2, "module.m.command", "is missing", "Write command = …"),
    "text for a number": (
        START + 'stop_grace_s = "5"',
        4,
        "module.m.stop_grace_s",
        'must be a number from 0 to 3600, not "5"',
        "Write it without quotes: 5.",
    ),
    "number for a text": (START + "user = 0", 4, "module.m.user", "not 0", 'Write it in quotes: "0".'),
    "true for a number": (START + "stop_grace_s = true", 4, "module.m.stop_grace_s", "not true", "Write a number."),
    "date for a text": (START + "user = 2026-01-01", 4, "module.m.user", "not a date or time", "in quotes"),
    "fraction for a whole number": (
        START + "[module.m.limits]\nprocesses = 1.5",
        5,
        "module.m.limits.processes",
        "must be a whole number from 1 to 4194304, not 1.5",
        "Write it without a fraction: 1.",
    ),
    "not a number": (START + "stop_grace_s = nan", 4, "module.m.stop_grace_s", "not nan", "in this range"),
    "number beyond all": (
        START + "stop_grace_s = 99999999999999999999999999",
        4,
        "module.m.stop_grace_s",
        "not a number beyond 64 bits",
        "in this range",
    ),
    "zero where above is asked": (
        START + "[module.m.limits]\ncpus = 0",
        5,
        "module.m.limits.cpus",
        "must be a number above 0 and at most 65536, not 0",
        "in this range",
    ),
    "port out of range": (
        START + '[[module.m.check]]\nkind = "tcp"\nport = 70000',
        6,
        "module.m.check[0].port",
        "must be a whole number from 1 to 65535, not 70000",
        "in this range",
    ),
    "bad name": ('name = "A b"\n[module.m]\ncommand = ["x"]', 1, "name", 'not "A b"', "Use 1 to 63 of a-z, 0-9"),
    "long name": (f'name = "{"a" * 64}"\n[module.m]\ncommand = ["x"]', 1, "name", "must be a name", "Use 1 to 63"),
    "bad module name": (
        'name = "a"\n[module."M 1"]\ncommand = ["x"]',
        2,
        'module."M 1"',
        "must be a name",
        "Use 1 to 63",
    ),
    "keys beside modules": (
        'name = "a"\n[module]\ncommand = ["x"]',
        3,
        "module.command",
        "must stand in one of the modules",
        "Put it in [module.NAME].",
    ),
    "modules as a list": (
        'name = "a"\n[[module]]\nname = "m"',
        2,
        "module",
        "must be a table of modules, not a list",
        "Write [module.NAME].",
    ),
    "check as a table": (
        START + '[module.m.check]\nkind = "tcp"',
        4,
        "module.m.check",
        "must be a list of checks, not a table",
        "Write [[module.m.check]], with double brackets.",
    ),
    "limits as a list": (
        START + "[[module.m.limits]]\ncpus = 1",
        4,
        "module.m.limits",
        "must be a table, not a list",
        "Write [module.m.limits], with single brackets.",
    ),
    "kind to come": (
        'name = "a"\nkind = "app"\n[module.m]\ncommand = ["x"]',
        2,
        "kind",
        'cannot be "app" yet: this version runs services and virtual machines',
        'Write "service" or "vm".',
    ),
    "protection of machines": (
        'name = "a"\nprotection = "hot"\n[module.m]\ncommand = ["x"]',
        2,
        "protection",
        'cannot be "hot" for a service, only for a vm',
        'Write protection = "cold".',
    ),
    "kind that is none": ('kind = "job"\n' + START, 1, "kind", 'must be "service" or "vm", not "job"', "Write"),
    "policy misspelt": ('on_isolation = "Leave"\n' + START, 1, "on_isolation", 'not "Leave"', 'Write "leave".'),
    "signal with its prefix": (START + 'stop_signal = "SIGHUP"', 4, "module.m.stop_signal", "not", 'Write "HUP".'),
    "virtual IP twice": (
        START + '[[virtual_ip]]\naddress = "10.0.0.9/24"\n[[virtual_ip]]\naddress = "10.0.0.9/16"',
        7,
        "virtual_ip[1].address",
        "names 10.0.0.9 for the second time",
        "Remove one of the two.",
    ),
    "virtual IP twice, IPv6": (
        START + '[[virtual_ip]]\naddress = "fd00::9/64"\n[[virtual_ip]]\naddress = "fd00:0::9/64"',
        7,
        "virtual_ip[1].address",
        "names fd00::9 for the second time",
        "Remove one of the two.",
    ),
    "virtual IP without prefix": (
        START + '[[virtual_ip]]\naddress = "10.0.0.9"',
        5,
        "virtual_ip[0].address",
        "has no prefix length",
        "10.0.0.9/24",
    ),
    "virtual IP that is none": (
        START + '[[virtual_ip]]\naddress = "10.0.0.256/24"',
        5,
        "virtual_ip[0].address",
        "does not begin with an IP address",
        "Write it as ADDRESS/PREFIX",
    ),
    "virtual IP that is a subnet": (
        START + '[[virtual_ip]]\naddress = "10.0.0.0/24"',
        5,
        "virtual_ip[0].address",
        "is the address of the subnet 10.0.0.0/24 itself",
        "Choose an address in the subnet",
    ),
    "interface that is none": (
        START + '[[virtual_ip]]\naddress = "10.0.0.9/24"\ninterface = "eth0:1"',
        6,
        "virtual_ip[0].interface",
        "must be the name of a network interface",
        "such as eth0",
    ),
    "address to ask that is a name": (
        START + '[[module.m.check]]\nkind = "tcp"\nport = 1\naddress = "localhost"',
        7,
        "module.m.check[0].address",
        'not "localhost"',
        "127.0.0.1",
    ),
    "data without a datastore": (
        'name = "a"\n[module.m]\ncommand = ["x", "{data}"]',
        3,
        "module.m.command[1]",
        "has {data}, but the workload has no data folder",
        'Write data_on = "DATASTORE"',
    ),
    "address without a virtual IP": (
        START + 'environment = { A = "{address}" }',
        4,
        "module.m.environment.A",
        "has {address}, but the workload has no virtual IP",
        "Write [[virtual_ip]]",
    ),
    "unknown word in braces": (
        'name = "a"\n[module.m]\ncommand = ["x",\n"{adress}"]',
        4,
        "module.m.command[1]",
        'has "{adress}", which stands for nothing',
        'Write {address}, or "{{adress}}"',
    ),
    "unlike any word in braces": (
        START + '[[module.m.check]]\nkind = "command"\ncommand = ["awk", "{print}"]',
        6,
        "module.m.check[0].command[1]",
        'has "{print}", which stands for nothing',
        'or "{{print}}"',
    ),
    "after an unknown module": (
        START + 'after = ["n"]',
        4,
        "module.m.after[0]",
        'names "n", which is no module of this file',
        "There is no other module.",
    ),
    "after a misspelt module": (
        START + 'after = ["other", "cahce"]\n[module.cache]\ncommand = ["x"]\n[module.other]\ncommand = ["x"]',
        4,
        "module.m.after[1]",
        'names "cahce"',
        'Write "cache".',
    ),
    "after itself": (START + 'after = ["m"]', 4, "module.m.after[0]", "names its own module", "Remove it."),
    "after the same twice": (
        START + 'after = ["n", "n"]\n[module.n]\ncommand = ["x"]',
        4,
        "module.m.after[1]",
        'says "n" for the second time',
        "Say it once.",
    ),
    "a circle": (
        START + 'after = ["n"]\n[module.n]\ncommand = ["x"]\nafter = ["m"]',
        4,
        "module.m.after",
        "makes a circle: m after n after m",
        "Remove one of these",
    ),
    "empty command": (
        'name = "a"\n[module.m]\ncommand = []',
        3,
        "module.m.command",
        "must not be an empty list of words",
        "Name a program.",
    ),
    "command without a program": (
        'name = "a"\n[module.m]\ncommand = [""]',
        3,
        "module.m.command[0]",
        "must be the name or absolute path of a program",
        "Name a program.",
    ),
    "relative command": (
        'name = "a"\n[module.m]\ncommand = ["./run"]',
        3,
        "module.m.command[0]",
        "is a relative path",
        "Write the program's absolute path",
    ),
    "command as a text": (
        'name = "a"\n[module.m]\ncommand = "sh -c \'a b\'"',
        3,
        "module.m.command",
        "must be a list of words",
        'No shell reads it: write ["sh", "-c", "a b"].',
    ),
    "command with a nought": (
        'name = "a"\n[module.m]\ncommand = ["x", "a\\u0000b"]',
        3,
        "module.m.command[1]",
        "must be text in quotes",
        "without the character of code 0",
    ),
    "relative folder": (START + 'working_folder = "x"', 4, "module.m.working_folder", 'not "x"', "from the root on"),
    "bad variable": (
        START + 'environment = { "A B" = "x" }',
        4,
        'module.m.environment."A B"',
        "must be the name",
        "letters",
    ),
    "bad regular expression": (
        START + '[module.m.readiness]\nline = "(ready"',
        5,
        "module.m.readiness.line",
        "is no regular expression (missing ), unterminated subpattern at character 1)",
        "Write a \\",
    ),
    "key of another kind of check": (
        START + '[[module.m.check]]\nkind = "tcp"\nport = 1\npath = "/"',
        7,
        "module.m.check[0].path",
        "is for kind http, and this is tcp",
        'Remove it, or write kind = "http".',
    ),
    "check without its port": (
        START + '[[module.m.check]]\nkind = "http"',
        4,
        "module.m.check[0].port",
        "is missing",
        "Write port = …",
    ),
    "check without its kind": (
        START + "[[module.m.check]]\nport = 1",
        4,
        "module.m.check[0].kind",
        "is missing",
        '"tcp"',
    ),
    "request with a space": (
        START + '[[module.m.check]]\nkind = "http"\nport = 1\npath = "/a b"',
        7,
        "module.m.check[0].path",
        "must be the path of a request",
        "use no spaces",
    ),
    "back-off that cannot grow": (
        START + "[module.m.restore]\nbackoff_s = 20",
        5,
        "module.m.restore.backoff_s",
        "must not be above backoff_most_s, which is 10",
        "Write both",
    ),
    "back-off below its beginning": (
        START + "[module.m.restore]\nbackoff_most_s = 0.25",
        5,
        "module.m.restore.backoff_most_s",
        "must not be below backoff_s, which is 0.5",
        "Write both",
    ),
    "too many elements": (
        START + f"after = [{', '.join(chr(34) + f'm{n}' + chr(34) for n in range(65))}]",
        4,
        "module.m.after",
        "has 65 names of modules; at most 64 are possible",
        "Remove some.",
    ),
    "mistake of writing": (START + "user = root", 4, "module.m.user", "This is no value.", "Write text in quotes"),
}


@pytest.mark.parametrize(("text", "line", "path", "sentence", "fix"), MISTAKES.values(), ids=MISTAKES.keys())
def test_each_mistake_has_its_line_path_sentence_and_fix(
    text: str, line: int, path: str, sentence: str, fix: str
) -> None:
    (problem,) = problems_of(text)
    assert (problem.line, problem.path) == (line, path)
    assert sentence in problem.sentence
    assert fix in problem.fix


def test_all_mistakes_of_a_file_are_told_at_once_in_their_order() -> None:
    text = """
name = "Counter"
kind = "app"
[module.a]
command = []
after = ["b"]
stop_grace_s = -1
[module.b]
command = ["x"]
after = ["a"]
[[virtual_ip]]
address = "10.0.0.9"
[[module.b.check]]
kind = "tcp"
unknown = 1
"""
    assert [(problem.line, problem.path) for problem in problems_of(text)] == [
        (2, "name"),
        (3, "kind"),
        (5, "module.a.command"),
        (6, "module.a.after"),
        (7, "module.a.stop_grace_s"),
        (12, "virtual_ip[0].address"),
        (13, "module.b.check[0].port"),
        (15, "module.b.check[0].unknown"),
    ]


def test_nothing_is_called_missing_that_may_stand_in_what_could_not_be_read() -> None:
    text = (
        'name = \ndata_on = \n[module.a]\ncommand = ["{data}"]\nafter = ["b"]\nuser = 1\n[module.b\ncommand = ["x"]\n'
    )
    assert [(problem.line, problem.path) for problem in problems_of(text)] == [
        (1, "name"),
        (2, "data_on"),
        (6, "module.a.user"),
        (7, "module.b"),
    ]


def test_a_file_of_something_else_is_not_told_to_its_end() -> None:
    text = "".join(f"key-{number} = 1\n" for number in range(1000))
    assert len(problems_of(text)) == MOST_PROBLEMS


def test_the_error_tells_everything_and_ends_with_the_usage_code() -> None:
    with pytest.raises(WorkloadFileError) as caught:
        parse_workload('name = "a"\nkind = "app"\npriority = -1\n[module.m]\ncommand = ["x"]\n', "web.toml")
    error = caught.value
    assert isinstance(error, UsageInvalid)
    assert (error.id, error.exit_code) == ("workload-file.invalid", 2)
    assert error.sentence == "web.toml is no valid workload file: 2 mistakes."
    assert error.cause.splitlines() == [
        'web.toml:2: kind cannot be "app" yet: this version runs services and virtual machines. '
        'Write "service" or "vm".',
        "web.toml:3: priority must be a whole number from 0 to 1000, not -1. Choose a number in this range.",
    ]
    assert error.remedy


def test_nothing_of_a_file_can_act_on_a_terminal() -> None:
    with pytest.raises(WorkloadFileError) as caught:
        parse_workload('name = "\\u001b[2J\\u009b\\u202e"\n"\\u001bc" = 1\n', "a\x1bb.toml")
    assert caught.value.cause.replace("\n", "").isprintable()
    assert caught.value.sentence.isprintable()


def test_a_document_without_lines_is_told_without_them() -> None:
    with pytest.raises(WorkloadFileError) as caught:
        workload_from_document({"name": "a", "module": {"m": {"command": None}}}, "request")
    assert caught.value.cause.startswith("request: module.m.command must be a list of words, not nothing.")


def test_a_file_is_read_from_disk(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(EVERYTHING)
    assert read_workload(path) == parse_workload(EVERYTHING)


@pytest.mark.parametrize("name", ["missing.toml", ".", "no\0name"])
def test_a_file_that_cannot_be_read_is_told_as_such(tmp_path: Path, name: str) -> None:
    with pytest.raises(WorkloadFileError) as caught:
        read_workload(tmp_path / name)
    assert "cannot be read" in caught.value.sentence
    assert len(caught.value.problems) == 1
