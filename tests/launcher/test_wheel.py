"""What `pip install` would put on a machine, seen by looking into the wheel that the build backend makes."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import outlive

from .conftest import REAL, copy_checkout

BUILD = "import mesonpy, sys; print(mesonpy.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    source = copy_checkout(folder / "source")
    tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)],
        cwd=source,
        env={**os.environ, "PATH": tools, "CFLAGS": "-O0"},
        check=True,
        capture_output=True,
        timeout=100,
    )
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


def test_every_file_of_the_package_is_in_the_wheel_and_no_other(wheel: zipfile.ZipFile) -> None:
    packed = {name for name in wheel.namelist() if name.startswith("outlive/")}
    source = REAL / "src"
    here = {
        str(path.relative_to(source))
        for path in (source / "outlive").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == here


def test_the_native_programs_and_libraries_are_installed_beside_the_interpreter(wheel: zipfile.ZipFile) -> None:
    scripts = {name.rsplit("/", 1)[1] for name in wheel.namelist() if ".data/scripts/" in name}
    programs = {"outlive-guard", "outlive-runner", "outlive-runlock"}
    assert scripts == {*programs, "liboutlive-pages.so", "liboutlive-heartbeats.so", "libpagewatch.so"}


def test_the_programs_for_guests_are_installed_beside_no_command(wheel: zipfile.ZipFile) -> None:
    shared = {name.split("/data/", 1)[1] for name in wheel.namelist() if ".data/data/" in name}
    assert shared == {f"outlive/guest/outlive-guest-{name}" for name in ("server", "clients")}


def test_the_wheel_is_for_this_kind_of_machine_and_brings_the_command(wheel: zipfile.ZipFile) -> None:
    assert wheel.filename is not None
    assert "-any.whl" not in wheel.filename
    (entry_points,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "outlive = outlive.__main__:main" in wheel.read(entry_points).decode().replace("=", " = ").replace("  ", " ")


def test_the_version_is_told_the_same_everywhere(wheel: zipfile.ZipFile) -> None:
    declared = tomllib.loads((REAL / "pyproject.toml").read_text())["project"]["version"]
    assert declared == outlive.__version__
    assert f"outlive-{declared}.dist-info/METADATA" in wheel.namelist()
    assert f"## {declared}" in (REAL / "CHANGELOG.md").read_text()


def test_the_lock_file_is_of_these_requirements_and_names_only_the_public_index() -> None:
    lock = tomllib.loads((REAL / "uv.lock").read_text())
    declared = tomllib.loads((REAL / "pyproject.toml").read_text())
    (ours,) = [package for package in lock["package"] if package["name"] == "outlive"]
    locked = {f"{need['name']}{need['specifier']}" for need in ours["metadata"]["requires-dist"]}
    assert locked == set(declared["project"]["dependencies"])
    locked_dev = {f"{need['name']}{need['specifier']}" for need in ours["metadata"]["requires-dev"]["dev"]}
    assert locked_dev == set(declared["dependency-groups"]["dev"])
    registries = {package["source"].get("registry") for package in lock["package"] if package is not ours}
    assert registries == {"https://pypi.org/simple"}
