"""A manifest from outside is taken only if every part of it is harmless and possible."""

import msgspec
import pytest

from outlive.cluster import package as pkg
from outlive.cluster.package import Component, Manifest, PackageCommand, PackageFile, problem_with
from outlive.cluster.versions import parse_wanted

HASH, OTHER = "a" * 64, "b" * 64


def file(path: str, mode: int = 0o644, size: int = 3, digest: str = HASH) -> PackageFile:
    return PackageFile(path, mode, size, digest)


def command(*words: str, timeout_s: float = 5.0, **environment: str) -> PackageCommand:
    return PackageCommand(words, timeout_s, environment)


GOOD = Manifest(
    format=1,
    name="web",
    version="1.2.0",
    files=(file("bin/setup", 0o755), file("etc/ä b", 0o400)),
    dependencies={"lib": "^1"},
    install=command("{package}/bin/setup"),
    start=command("/usr/bin/web", "{package}"),
    check=command("curl", HOME="/"),
)


def test_a_manifest_that_is_right_has_no_problem() -> None:
    assert problem_with(GOOD) == ""
    assert (GOOD.bytes, GOOD.components) == (6, (Component(HASH, 3),))
    assert GOOD.wants == (parse_wanted("lib@^1"),)


def test_the_smallest_package_is_a_name_and_a_version() -> None:
    assert problem_with(Manifest(format=1, name="a", version="0.0.0")) == ""


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("", "empty part"),
        ("/etc/passwd", "begins at the root"),
        ("../outside", "part '..'"),
        ("a/../../b", "part '..'"),
        ("a/..", "part '..'"),
        ("./a", "part '.'"),
        ("a//b", "empty part"),
        ("a/", "empty part"),
        ("a\nb", "cannot be printed"),
        ("a\x1b[2J", "cannot be printed"),
        ("a\0", "cannot be printed"),
        ("a\u202eb", "cannot be printed"),
        ("x" * 256, "longer than 255"),
        ("ä" * 128, "longer than 255"),
        ("x/" * 600 + "x", "longer than 1024"),
        ("x/" * 64 + "x", "more than 63 folders deep"),
    ],
)
def test_a_path_that_leads_astray_is_refused(path: str, told: str) -> None:
    assert told in problem_with(msgspec.structs.replace(GOOD, install=None, files=(file(path),)))


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        (0o4755, "setuid"),
        (0o2755, "setuid, setgid"),
        (0o1755, "sticky"),
        (0o666, "written by others"),
        (0o664, "written by others"),
        (0o100644, "written by others"),
        (-1, "setuid"),
        (0, "cannot be read"),
        (0o200, "cannot be read"),
    ],
)
def test_permissions_that_a_package_cannot_give_are_refused(mode: int, told: str) -> None:
    assert told in problem_with(msgspec.structs.replace(GOOD, install=None, files=(file("a", mode),)))


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ((file("a"), file("a")), "named twice"),
        ((file("b"), file("a")), "order"),
        ((file("a"), file("a/b")), "a folder as well"),
        ((file("a"), file("a.x"), file("a/b/c")), "a folder as well"),
        ((file("a"), file("b", size=4)), "another size"),
        ((file("a", digest="A" * 64),), "hash"),
        ((file("a", digest="../" + "a" * 61),), "hash"),
        ((file("a", size=-1),), "larger than"),
        ((file("a", size=pkg.MOST_FILE_BYTES + 1),), "larger than"),
        (tuple(file(f"{n}", size=4 << 30, digest=f"{n}" * 64) for n in range(5)), "at most 17179869184"),
        (tuple(file(f"{n:05}") for n in range(10_001)), "at most 10000"),
        (tuple(file(f"{n:05}/{'x/' * 9}x") for n in range(1500)), "more than 10000 folders"),
    ],
)
def test_files_that_do_not_go_together_are_refused(files: tuple[PackageFile, ...], told: str) -> None:
    assert told in problem_with(msgspec.structs.replace(GOOD, install=None, files=files))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": 2}, "format is 2"),
        ({"name": "../web"}, "name is not"),
        ({"name": ""}, "name is not"),
        ({"version": "1.2"}, "version is none"),
        ({"version": "1.2.3-" + "a" * 64}, "version is none"),
        ({"version": "1.0.0/.."}, "version is none"),
        ({"description": "a\nb"}, "one line"),
        ({"description": "a" * 1001}, "one line"),
        ({"dependencies": {"a/b": "*"}}, "whose name is not"),
        ({"dependencies": {"web": "*"}}, "on itself"),
        ({"dependencies": {"lib": "new"}}, "no range"),
        ({"dependencies": {f"a{n}": "*" for n in range(65)}}, "at most 64"),
        ({"install": command()}, "names no program"),
        ({"install": command("")}, "names no program"),
        ({"start": command("bin/x")}, "begins neither"),
        ({"start": command("../x")}, "begins neither"),
        ({"check": command("a", "b\0c")}, "code 0"),
        ({"check": command(*["a"] * 1025)}, "more than 1024 words"),
        ({"check": command("a", "b" * 100_001)}, "more than 1024 words"),
        ({"check": command("a", timeout_s=0.0)}, "time limit"),
        ({"check": command("a", timeout_s=float("nan"))}, "time limit"),
        ({"check": command("a", timeout_s=float("inf"))}, "time limit"),
        ({"check": PackageCommand(("a",), 1.0, {"A B": ""})}, "variable whose name"),
        ({"check": PackageCommand(("a",), 1.0, {"OUTLIVE_HOST": ""})}, "begins with OUTLIVE_"),
        ({"install": command("{package}/bin/other")}, "not among its files"),
        ({"install": command("{package}/etc/ä b")}, "not executable"),
    ],
)
def test_a_manifest_with_a_wrong_part_is_refused(change: dict[str, object], told: str) -> None:
    assert told in problem_with(msgspec.structs.replace(GOOD, **change))
