"""A manifest has one way of being written; a folder becomes a package, or all that is wrong with it is told."""

import json
import os
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlive.cluster.package import Manifest, PackageCommand, PackageFile, problem_with
from outlive.config.package_file import PackageFileError, package_schema
from outlive.depot.components import digest_of
from outlive.depot.errors import PackageInvalid
from outlive.depot.install import Installations
from outlive.depot.package import manifest_bytes, package_id, read_manifest
from outlive.depot.shelf import Shelf

from .package_scene import FILES, component, files_in, source

GOOD = Manifest(
    format=1,
    name="web",
    version="1.2.0",
    files=(PackageFile("bin/setup", 0o755, 3, "a" * 64), PackageFile("etc/ä", 0o644, 4, "b" * 64)),
    dependencies={"tls": "*", "lib": "^1"},
    install=PackageCommand(("{package}/bin/setup",), 5.0, {"B": "", "A": ""}),
)
RAW = manifest_bytes(GOOD)

KNOWN_HASHES = st.sampled_from(["a" * 64, "b" * 64])
NAMES = st.from_regex("[a-z0-9]{6}", fullmatch=True)
PATHS = st.from_regex(r"[a-z]{1,3}(/[a-zä. ]{1,4}){0,2}", fullmatch=True)
MANIFESTS = st.builds(
    Manifest,
    format=st.just(1),
    name=st.from_regex("[a-z]{1,5}", fullmatch=True),
    version=st.sampled_from(["1.0.0", "2.0.0-rc.1"]),
    files=st.lists(
        st.builds(PackageFile, PATHS, st.sampled_from([0o400, 0o644, 0o755]), st.just(7), KNOWN_HASHES),
        unique_by=lambda file: file.path,
    ).map(lambda files: tuple(sorted(files, key=lambda file: file.path))),
    description=st.text(st.characters(categories=["L", "N"]), max_size=8),
    dependencies=st.dictionaries(NAMES, st.just("^1"), max_size=3),
    start=st.none() | st.builds(PackageCommand, st.just(("x", "ä")), st.floats(0.5, 100), st.just({"A": "1"})),
).filter(lambda manifest: not problem_with(manifest))  # fmt: skip


@settings(max_examples=50)
@given(MANIFESTS)
def test_a_manifest_reads_back_as_itself_and_its_id_is_its_hash(manifest: Manifest) -> None:
    raw = manifest_bytes(manifest)
    assert read_manifest(raw, id=package_id(manifest)) == manifest
    assert package_id(manifest) == digest_of(raw)


def test_the_order_in_which_something_was_written_down_is_no_difference() -> None:
    other = msgspec.structs.replace(GOOD, dependencies={"lib": "^1", "tls": "*"})
    assert package_id(other) == package_id(GOOD)


@pytest.mark.parametrize(
    "raw",
    [
        RAW + b"\n",
        b" " + RAW,
        RAW.replace(b",", b", ", 1),
        RAW.replace(b'"lib":"^1","tls":"*"', b'"tls":"*","lib":"^1"'),
        RAW.replace(b'"format":1', b'"format":1.0'),
        RAW.replace(b'"version"', b'"description":"","version"'),
        RAW.replace("ä".encode(), b"\\u00e4"),
        RAW.replace(b'"mode":420', b'"mode":420,"mode":420'),
    ],
)
def test_what_is_written_otherwise_is_refused(raw: bytes) -> None:
    assert raw != RAW
    with pytest.raises(PackageInvalid, match="manifest is not valid"):
        read_manifest(raw)


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", "cannot be read"),
        (b"{}", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (RAW[:-1], "cannot be read"),
        (b'{"\x80' + RAW[2:], "cannot be read"),
        (RAW.replace(b'"name"', b'"nome"'), "cannot be read"),
        (RAW.replace(b'"web"', b'"\\ud800"'), "cannot be read"),
        (RAW.replace(b'"mode":420', b'"mode":2468'), "setuid"),
        (RAW.replace(b"bin/setup", b"../../usr/bin/setup"), "part '..'"),
        (b" " * (5 << 20), "longer than"),
    ],
    ids=range(10),
)
def test_what_is_no_manifest_is_refused_with_its_reason(raw: bytes, told: str) -> None:
    with pytest.raises(PackageInvalid) as caught:
        read_manifest(raw)
    assert told in caught.value.cause


def test_a_manifest_with_another_id_is_refused() -> None:
    with pytest.raises(PackageInvalid, match="manifest"):
        read_manifest(RAW, id="a" * 64)


@settings(max_examples=300)
@given(st.binary() | st.tuples(st.integers(0, len(RAW)), st.integers(0, 9), st.binary(max_size=4)))
def test_any_bytes_are_a_manifest_or_refused(change: bytes | tuple[int, int, bytes]) -> None:
    raw = change if isinstance(change, bytes) else RAW[: change[0]] + change[2] + RAW[change[0] + change[1] :]
    try:
        manifest = read_manifest(raw)
    except PackageInvalid:
        return
    assert manifest_bytes(manifest) == raw


# --- building


def test_a_folder_becomes_a_package(tmp_path: Path) -> None:
    folder = source(tmp_path, needs={"lib": "^1"}, more='[install]\ncommand = ["bin/run", "x"]\ntimeout_s = 9')
    (folder / "files" / "etc" / "web.conf").chmod(0o662)
    (folder / "files" / "bin" / "run").chmod(0o115)
    (folder / "files" / "empty").mkdir()
    (folder / "notes").write_text("not of the package")
    manifest = Shelf(tmp_path / "depot").build(folder)
    run, conf = component(FILES["bin/run"]), component(FILES["etc/web.conf"])
    assert manifest == Manifest(
        format=1,
        name="web",
        version="1.0.0",
        files=(
            PackageFile("bin/run", 0o515, run.bytes, run.digest),
            PackageFile("etc/web.conf", 0o640, conf.bytes, conf.digest),
        ),
        dependencies={"lib": "^1"},
        install=PackageCommand(("{package}/bin/run", "x"), 9.0),
    )


def test_the_same_folder_gives_the_same_package_wherever_it_is(tmp_path: Path) -> None:
    one, other = tmp_path / "a", tmp_path / "b"
    made = [Shelf(folder / "depot").build(source(folder)) for folder in (one, other)]
    assert package_id(made[0]) == package_id(made[1])


EXAMPLES = Path(__file__).parents[2] / "examples" / "packages"


@pytest.mark.parametrize("folder", sorted(EXAMPLES.iterdir()), ids=lambda folder: folder.name)
def test_examples_are_packages_that_can_be_installed(tmp_path: Path, folder: Path) -> None:
    shelf = Shelf(tmp_path / "depot")
    installations = Installations(tmp_path / "packages", shelf)
    installed = installations.install(package_id(shelf.build(folder)))
    assert installations.verify(installed) == ()
    text = (folder / "package.toml").read_text()
    directive = re.match(r"#:schema (\S+)\n", text)
    assert directive is not None
    assert json.loads((folder / directive[1]).read_text()) == package_schema()


def test_a_package_need_not_have_files(tmp_path: Path) -> None:
    folder = source(tmp_path, files={})
    assert Shelf(tmp_path / "depot").build(folder).files == ()
    (folder / "package.toml").write_text('name = "web"\nversion = "1.0.0"\nfiles = "root"')
    with pytest.raises(PackageInvalid) as caught:
        Shelf(tmp_path / "depot").build(folder)
    assert "root is no folder" in caught.value.cause


def test_all_that_cannot_be_in_a_package_is_told_at_once_and_nothing_is_kept(tmp_path: Path) -> None:
    folder = source(tmp_path)
    files = folder / "files"
    (files / "link").symlink_to("/etc/passwd")
    (files / "folder-link").symlink_to("/etc")
    os.mkfifo(files / "pipe")
    os.mknod(files / "device", 0o600 | 0o060000, os.makedev(7, 0))
    (files / "setuid").write_text("x")
    (files / "setuid").chmod(0o4755)
    (files / "new\nline").write_text("x")
    (Path(os.fsdecode(os.fsencode(files) + b"/\xff"))).write_text("x")
    with pytest.raises(PackageInvalid) as caught:
        Shelf(tmp_path / "depot").build(folder)
    told = caught.value.cause
    assert len(told.splitlines()) == 7
    for part in (
        "link is a symbolic link",
        "pipe is a pipe",
        "device is a device",
        "setuid has the setuid",
        "new\\nline",
    ):
        assert part in told
    assert "not UTF-8" in told
    assert files_in(tmp_path / "depot") == []


def test_folders_that_lie_too_deep_are_told_and_not_followed(tmp_path: Path) -> None:
    folder = source(tmp_path)
    deep = folder / "files" / Path(*["x"] * 400)
    deep.mkdir(parents=True)
    (deep / "x").write_text("x")
    with pytest.raises(PackageInvalid) as caught:
        Shelf(tmp_path / "depot").build(folder)
    assert "lies too deep" in caught.value.cause


def test_mistakes_in_package_toml_are_told_with_their_lines(tmp_path: Path) -> None:
    folder = source(tmp_path, more='[install]\ncommand = "make"')
    with pytest.raises(PackageFileError) as caught:
        Shelf(tmp_path / "depot").build(folder)
    assert [problem.line for problem in caught.value.problems] == [5]


def test_an_install_command_must_be_among_the_files(tmp_path: Path) -> None:
    folder = source(tmp_path, more='[install]\ncommand = ["bin/setup"]')
    with pytest.raises(PackageInvalid) as caught:
        Shelf(tmp_path / "depot").build(folder)
    assert "'bin/setup', which is not among its files" in caught.value.cause
