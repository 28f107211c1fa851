"""The extension of JupyterLab that goes into the runtime is the one whose source is here."""

import hashlib
import json
from pathlib import Path

from ds01_spawner import runtime

REPOSITORY = Path(__file__).parents[2]
SOURCE = REPOSITORY / "labextension"
BUILT = runtime.CONTEXT / "labextension"


def test_it_was_built_from_the_source_as_it_is_now():
    files = [SOURCE / "package.json", SOURCE / "package-lock.json", SOURCE / "tsconfig.json"]
    files += [SOURCE / "bundle.config.js", *SOURCE.glob("src/**/*"), *SOURCE.glob("style/**/*")]
    now = {
        str(file.relative_to(SOURCE)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file()
    }
    lines = (SOURCE / "built-from.sha256").read_text().splitlines()
    then = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    assert now == then, "run scripts/build_labextension.sh"


def test_jupyterlab_finds_all_that_it_loads():
    metadata = json.loads((BUILT / "package.json").read_text())
    wanted = json.loads((SOURCE / "package.json").read_text())
    build = metadata["jupyterlab"].pop("_build")
    assert metadata == wanted
    assert (BUILT / build["load"]).is_file()
    assert (build["extension"], build["style"]) == ("./extension", "./style")


def test_it_loads_nothing_from_elsewhere():
    for file in BUILT.glob("static/*.js"):
        text = file.read_text()
        assert "://" not in text.replace("http(s?)", ""), file
        assert "@import" not in text


def test_its_tools_are_pinned_without_a_registrys_name():
    wanted = json.loads((SOURCE / "package.json").read_text())
    packages = json.loads((SOURCE / "package-lock.json").read_text())["packages"]
    root = packages.pop("")
    assert root["dependencies"] == wanted["dependencies"]
    assert root["devDependencies"] == wanted["devDependencies"]
    assert not any("resolved" in package for package in packages.values())
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())


def test_it_is_typed_against_the_jupyterlab_that_it_runs_in():
    lock = (runtime.CONTEXT / "locks" / "server.lock").read_text()
    version = json.loads((SOURCE / "package.json").read_text())["dependencies"][
        "@jupyterlab/application"
    ]
    assert f"\njupyterlab=={version} " in lock
