"""How the launcher parts the server's world from the user's, and finds the image's Python."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from ds01_spawner import runtime
from ds01_spawner.runtime.image.launch import (
    environment,
    interpreter,
    kernels,
    overlay,
    places,
)
from ds01_spawner.runtime.image.launch.__main__ import server_settings
from ds01_spawner.runtime.image.launch.handover import VARIABLE, Handover
from ds01_spawner.runtime.image.launch.interpreter import Interpreter

INSIDE = runtime.CONTEXT / "inside"
DEBIAN = Interpreter(
    version=(3, 11),
    implementation="cpython",
    platform="x86_64-linux-gnu",
    free_threaded=False,
    executable="/usr/bin/python3",
    prefix="/usr",
    base_prefix="/usr",
    packages=(),
    has_ipykernel=False,
    has_pip=True,
    system_packages=True,
)
IMAGE_ENVIRONMENT = {
    "PATH": "/opt/tool/bin:/usr/bin",
    "HOME": "/home/alice",
    "PYTHONPATH": "/hostile",
    "LD_LIBRARY_PATH": "/opt/cuda/lib",
    "LD_PRELOAD": "",
    "DS01_IMAGE_LD_PRELOAD": "/usr/lib/libjemalloc.so",
    "DS01_USER": "alice",
    "GCONV_PATH": "/hostile",
    "JUPYTER_CONFIG_DIR": "/hostile",
    "JUPYTERHUB_API_TOKEN": "secret",
    "JUPYTERHUB_SINGLEUSER_APP": "hostile.App",
}


def handover(**changes):
    values = {
        "user": environment.user_environment(IMAGE_ENVIRONMENT, {}),
        "server_names": ("PATH", "HOME", "LANG"),
        "python": DEBIAN,
        "overlay": "/opt/temporary",
        "place": "/opt/temporary",
        "notice": "",
    }
    return Handover(**{**values, **changes})


def script(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def inside(monkeypatch):
    monkeypatch.setattr(interpreter, "INSIDE", INSIDE)
    monkeypatch.setattr(overlay, "INSIDE", INSIDE)


@pytest.fixture
def this_python(inside):
    return interpreter.probe(sys.executable, {"PATH": "/usr/bin"})


class TestEnvironment:
    def test_the_server_gets_nothing_that_an_image_set_for_its_own_programs(self):
        server = environment.server_environment(IMAGE_ENVIRONMENT, {"JUPYTER_PATH": "/x"})
        assert server == {
            "PATH": "/opt/tool/bin:/usr/bin",
            "HOME": "/home/alice",
            "DS01_USER": "alice",
            "JUPYTERHUB_API_TOKEN": "secret",
            "JUPYTER_PATH": "/x",
            "LANG": "C.UTF-8",
        }

    def test_kernels_and_terminals_get_all_of_it_back(self):
        user = environment.user_environment(IMAGE_ENVIRONMENT, {})
        for name in ("PYTHONPATH", "LD_LIBRARY_PATH", "GCONV_PATH", "JUPYTER_CONFIG_DIR"):
            assert user[name] == IMAGE_ENVIRONMENT[name]
        assert user["LD_PRELOAD"] == "/usr/lib/libjemalloc.so"
        assert "DS01_IMAGE_LD_PRELOAD" not in user

    def test_an_emptied_preload_is_not_given_to_programs(self):
        assert "LD_PRELOAD" not in environment.user_environment({"LD_PRELOAD": ""}, {})

    def test_packages_in_the_shared_home_are_off(self):
        user = environment.user_environment({"PIP_USER": "1"}, {})
        assert (user["PYTHONNOUSERSITE"], user["PIP_USER"]) == ("1", "0")

    def test_an_images_language_stays(self):
        assert environment.user_environment({"LC_ALL": "de_DE.UTF-8"}, {}).get("LANG") is None
        assert environment.user_environment({}, {})["LANG"] == "C.UTF-8"

    def test_a_process_of_the_user_has_what_the_server_added_for_it(self):
        current = {"PATH": "/server", "HOME": "/server", "TERM": "xterm"}
        entered = environment.entered(current, ["PATH", "HOME"], {"PATH": "/image", "TERM": "dumb"})
        assert entered == {"PATH": "/image", "TERM": "xterm"}

    def test_the_overlay_comes_first_once_however_often_it_is_put_there(self):
        once = environment.with_overlay({"PATH": "/usr/bin:/opt/temporary/bin"}, "/opt/temporary")
        assert once["PATH"] == "/opt/temporary/bin:/usr/bin"
        assert environment.with_overlay(once, "/opt/temporary") == once

    def test_the_runtimes_python_gets_nothing_meant_for_another(self):
        user = environment.user_environment(IMAGE_ENVIRONMENT, {})
        left = environment.for_runtime_python({**user, "PYTHONHOME": "/evil"})
        assert {"PYTHONPATH", "PYTHONHOME", "LD_PRELOAD"}.isdisjoint(left)
        assert left["PYTHONNOUSERSITE"] == "1"


class TestInterpreter:
    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"version": (3, 8)}, "Python 3.8 is too old"),
            ({"version": (2, 7)}, "Python 2.7 is too old"),
            ({"version": (3, 15)}, "Python 3.15 is too new"),
            ({"platform": "x86_64-linux-musl"}, "Python 3.11 uses another C library (musl)"),
            ({"version": (3, 13), "free_threaded": True}, "Python 3.13 is free-threaded"),
            ({"implementation": "pypy"}, "pypy is not CPython"),
            ({"version": (3, 8), "has_ipykernel": True}, ""),
            ({"platform": "x86_64-linux-musl", "has_ipykernel": True}, ""),
            ({"version": (3, 9)}, ""),
            ({"version": (3, 14)}, ""),
        ],
    )
    def test_why_notebooks_cannot_run_on_a_python(self, changes, reason):
        assert replace(DEBIAN, **changes).why_no_kernel() == reason

    def test_there_is_a_lock_for_every_pack(self):
        locks = {path.stem for path in (runtime.CONTEXT / "locks").glob("cp*.lock")}
        assert locks == {f"cp{major}{minor}" for major, minor in interpreter.PACKS}

    def test_a_real_python_tells_what_it_is(self, this_python):
        assert this_python.version == sys.version_info[:2]
        assert (this_python.prefix, this_python.base_prefix) == (sys.prefix, sys.base_prefix)
        assert this_python.has_pip is True

    def test_start_up_code_that_prints_does_not_get_in_the_way(self, inside, tmp_path):
        (tmp_path / "sitecustomize.py").write_text("print('ds01-probe:{}')")
        user = {"PATH": "/usr/bin", "PYTHONPATH": str(tmp_path)}
        assert interpreter.probe(sys.executable, user).version == sys.version_info[:2]

    def test_a_python_that_does_not_work_is_passed_over_and_said(self, inside, tmp_path):
        broken = script(tmp_path / "python3", "#!/bin/sh\necho no libraries >&2\nexit 127\n")
        user = {"PATH": str(tmp_path)}
        found, reason = interpreter.choose(user)
        assert (found, reason) == (None, f"{broken} does not work: no libraries")
        (tmp_path / "python").symlink_to(sys.executable)
        assert interpreter.choose(user)[0].version == sys.version_info[:2]

    def test_no_python_at_all(self, tmp_path):
        found = interpreter.choose({"PATH": str(tmp_path)})
        assert found == (None, "there is no Python in this image")

    def test_a_python_in_the_working_directory_is_not_the_images(self, tmp_path, monkeypatch):
        script(tmp_path / "python3", "#!/bin/sh\n")
        monkeypatch.chdir(tmp_path)
        assert list(interpreter.candidates(f":.:{tmp_path.name}")) == []


class TestOverlay:
    def run(self, root, code):
        command = [root / "bin/python", "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    def test_it_is_an_environment_that_sees_what_lies_below(self, this_python, tmp_path):
        overlay.make(tmp_path, this_python)
        code = "import json, sys, pytest; print(json.dumps([sys.prefix, pytest.__file__]))"
        prefix, module = self.run(tmp_path, code)
        assert prefix == str(tmp_path)
        assert module == pytest.__file__

    def test_its_own_packages_come_first(self, this_python, tmp_path):
        overlay.make(tmp_path, this_python)
        own = tmp_path / overlay.packages_directory(this_python) / "pytest.py"
        own.write_text("")
        assert self.run(tmp_path, "import json, pytest; print(json.dumps(pytest.__file__))") == str(
            own
        )

    def test_making_it_again_keeps_what_was_installed(self, this_python, tmp_path):
        overlay.make(tmp_path, this_python)
        own = tmp_path / overlay.packages_directory(this_python) / "mine.py"
        own.write_text("")
        overlay.make(tmp_path, this_python)
        assert own.exists()

    def test_two_kernels_may_make_it_at_once(self, this_python, tmp_path):
        with ThreadPoolExecutor(4) as kernels_at_once:
            list(kernels_at_once.map(lambda _: overlay.make(tmp_path, this_python), range(20)))
        assert self.run(tmp_path, "import sys; print('\"%s\"' % sys.prefix)") == str(tmp_path)

    def test_pip_says_that_what_it_installs_is_temporary(self, this_python, tmp_path):
        overlay.make(tmp_path / "place", this_python)
        package = tmp_path / "nothing"
        package.mkdir()
        pip = [tmp_path / "place/bin/pip", "--disable-pip-version-check"]
        listed = subprocess.run([*pip, "list"], capture_output=True, text=True, check=True)
        assert "gone when it stops" not in listed.stdout
        asked = [*pip, "install", "--quiet", "--no-index", "--dry-run", "pip"]
        installed = subprocess.run(asked, capture_output=True, text=True, check=True)
        assert "gone when it stops" in installed.stdout
        failed = subprocess.run(
            [*pip, "install", "--no-index", "no-such-package"], capture_output=True, text=True
        )
        assert failed.returncode != 0
        assert "gone when it stops" not in failed.stdout

    def test_an_image_without_pip_gets_one(self):
        assert overlay.path_lines(DEBIAN) == []
        without = replace(DEBIAN, has_pip=False)
        assert overlay.path_lines(without) == [str(places.PIP)]
        assert overlay.path_lines(replace(without, version=(3, 8))) == []

    def test_an_environment_below_is_seen_with_its_own_rule_for_the_system(self):
        environment_below = replace(
            DEBIAN,
            prefix="/opt/env",
            packages=("/opt/env/lib/python3.11/site-packages",),
            system_packages=False,
        )
        assert overlay.path_lines(environment_below) == [
            "import site; site.addsitedir('/opt/env/lib/python3.11/site-packages')"
        ]
        assert "include-system-site-packages = false" in overlay.configuration(environment_below)

    def test_home_is_where_the_standard_library_is(self, tmp_path):
        real = tmp_path / "opt/python"
        (real / "bin").mkdir(parents=True)
        (real / "bin/python3").touch()
        (tmp_path / "bin").mkdir()
        link = tmp_path / "bin/python3"
        link.symlink_to(real / "bin/python3")
        moved = replace(DEBIAN, executable=str(link), prefix=str(real), base_prefix=str(real))
        assert overlay.home(moved) == str(real / "bin")
        assert overlay.home(DEBIAN) == "/usr/bin"

    def test_without_the_directory_in_the_container_there_is_one_in_tmp(
        self, monkeypatch, tmp_path
    ):
        monkeypatch.setattr(overlay, "TEMPORARY", tmp_path / "missing")
        monkeypatch.setattr(overlay.tempfile, "tempdir", str(tmp_path))
        assert overlay.place().parent == tmp_path


class TestKernels:
    def test_what_the_launcher_found_arrives_whole(self):
        original = handover(notice="it said »no«\udcff")
        assert Handover.load({VARIABLE: original.dumped()}) == original

    @pytest.mark.parametrize("program", ["python", "python3", "python3.11", "/usr/bin/python3"])
    def test_a_python_in_a_kernelspec_is_the_images(self, program):
        adapted = kernels.adapted({"argv": [program, "-m", "x"], "display_name": "X"}, handover())
        assert adapted["argv"][-3:] == ["/opt/temporary/bin/python", "-m", "x"]

    @pytest.mark.parametrize("program", ["/usr/local/bin/python3", "python2", "/usr/bin/python3.9"])
    def test_another_python_is_left_alone(self, program):
        assert not kernels.is_image_python(program, DEBIAN)

    def test_a_kernel_whose_program_is_not_in_the_image_is_not_offered(self):
        values = {"argv": ["/gone/bin/python", "-m", "x"]}
        assert kernels.adapted(values, handover()) is None

    def test_no_kernel_of_the_image_runs_on_the_runtimes_python(self):
        assert kernels.adapted({"argv": ["python3"]}, handover(notice="too old")) is None

    def test_variables_of_a_kernelspec_stay_out_of_the_way_into_the_image(self):
        values = {"argv": ["sh"], "env": {"LD_PRELOAD": "x.so", "LEVEL": 3}}
        adapted = kernels.adapted(values, handover())
        assert adapted["env"] == {}
        assert json.loads(adapted["argv"][-2]) == {"LD_PRELOAD": "x.so", "LEVEL": "3"}

    def test_conda_environments_are_kernels_but_not_the_one_that_is_first(self, tmp_path):
        for name in ("Deep Learning", "base-like"):
            (tmp_path / "envs" / name / "bin").mkdir(parents=True)
            (tmp_path / "envs" / name / "bin/python").touch()
        (tmp_path / "envs/empty").mkdir()
        (tmp_path / "conda-meta").mkdir()
        base = replace(DEBIAN, prefix=str(tmp_path))
        found = [kernels.conda_name(prefix) for prefix in kernels.conda_environments(base)]
        assert found == ["conda-env-deep-learning-py", "conda-env-base-like-py"]
        (tmp_path / "envs/base-like/conda-meta").mkdir()
        first = replace(DEBIAN, prefix=str(tmp_path / "envs/base-like"))
        assert [prefix.name for prefix in kernels.conda_environments(first)] == ["Deep Learning"]

    def test_the_kernel_says_when_it_is_not_the_images(self):
        assert kernels.native(handover())["display_name"] == "Python 3.11"
        assert "not the image's" in kernels.native(handover(notice="none"))["display_name"]


def test_each_project_keeps_its_own_tabs_in_the_home_that_all_share():
    def tabs(project, settings):
        server = server_settings({"HOME": "/home/a", "DS01_PROJECT": project}, settings)
        return server["JUPYTERLAB_WORKSPACES_DIR"]

    assert tabs("thesis", {}) == "/home/a/.jupyter/lab/workspaces/thesis"
    assert tabs("thesis", {}) != tabs("course", {})
    assert tabs("thesis", {"JUPYTER_CONFIG_DIR": "/tmp/safe"}).startswith("/tmp/safe/")
