"""run.sh up to the point where it would install or start something."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
RUN_SH = REPOSITORY / "run.sh"
NEEDED = ("requirements.lock", "setup.cfg", "run.sh", "scripts", "proxy/package-lock.json")
NOBODY = 65534
#: All that a bare Debian has of what run.sh calls before it installs anything.
BARE = (
    "bash",
    "cat",
    "dirname",
    "env",
    "grep",
    "realpath",
    "sed",
    "sha256sum",
    "timeout",
    "tr",
    "uname",
)


def run_sh(*options: str, **settings) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RUN_SH, *options], capture_output=True, text=True, timeout=60, **settings
    )


def call(script: str, **variables: str | Path | int) -> subprocess.CompletedProcess[str]:
    """Run lines of bash with run.sh's functions, its variables set as given."""
    given = {"VENV": sys.prefix, **variables}
    lines = [f"source {RUN_SH}", *(f"{name}='{value}'" for name, value in given.items()), script]
    return subprocess.run(
        ["bash", "-c", "\n".join(lines)], capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def bare():
    """Return a copy of what run.sh reads, with a ``bin`` that holds hardly anything, for all."""
    with tempfile.TemporaryDirectory() as directory:
        checkout = Path(directory)
        checkout.chmod(0o755)
        for name in NEEDED:
            (checkout / name).parent.mkdir(exist_ok=True)
            copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy2
            copy(REPOSITORY / name, checkout / name)
        (checkout / "bin").mkdir()
        for program in BARE:
            (checkout / "bin" / program).symlink_to(shutil.which(program))
        yield checkout


def run_bare(bare: Path, *command: str, **settings) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [shutil.which("bash"), *command],
        env={"PATH": str(bare / "bin")},
        capture_output=True,
        text=True,
        timeout=60,
        **settings,
    )


# -- options ------------------------------------------------------------------------------------


def test_help_names_every_option():
    done = run_sh("--help")

    assert done.returncode == 0
    options = ("--port", "--ip", "--data", "--no-install", "--stop-servers", "--pretend-gpus")
    for option in options:
        assert option in done.stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--prot", "8000"], "There is no option '--prot'"),
        (["8000"], "There is no option '8000'"),
        (["--port"], "--port needs a value"),
        (["--port", "http"], "'http' is not a port"),
        (["--port", "0"], "'0' is not a port"),
        (["--port", "65536"], "'65536' is not a port"),
        (["--port", "08000"], "'08000' is not a port"),
        (["--port="], "'' is not a port"),
        (["--ip", "localhost"], "'localhost' is not an address"),
        (["--data", ""], "--data needs a directory"),
        (["--data", "/tmp/a:b"], "must not contain a colon"),
        (["--data", "/etc/passwd"], "is not a directory"),
        (["--no-install=yes"], "--no-install takes no value"),
        (["--pretend-gpus"], "--pretend-gpus needs a value"),
        (["--pretend-gpus="], "--pretend-gpus needs GPUs"),
        (["--pretend-gpus", "gtx"], "There is no GPU 'gtx' to pretend"),
        (["--pretend-gpus", "--check"], "There is no GPU '--check' to pretend"),
        (["--pretend-gpus=a100-80gb,mig=8x1g.10gb"], "takes 7 at most"),
    ],
)
def test_a_wrong_option_is_explained(options, says):
    done = run_sh(*options)

    assert done.returncode == 2
    assert says in done.stderr
    assert "--help" in done.stderr


def test_options_are_read_with_a_space_or_an_equals_sign():
    done = call(
        "cd /; parse_options --port=1234 --ip 0.0.0.0 --data tmp/../opt --stop-servers;"
        'echo "$PORT $IP $DATA $INSTALL $STOP_SERVERS"'
    )
    assert done.stdout == "1234 0.0.0.0 /opt yes 1\n"


# -- what is missing ----------------------------------------------------------------------------


def test_all_that_is_missing_is_listed_at_once(bare):
    done = run_bare(bare, "-c", f"source {bare}/run.sh; list_missing; echo went on")

    assert done.returncode == 1
    assert done.stdout == ""
    listed = [line.split("\t")[0] for line in done.stderr.splitlines() if line.startswith("  - ")]
    for missing in ("docker.io", "iptables", "Python packages", "proxy", "engine"):
        assert f"  - {missing}" in listed


def test_no_install_makes_nothing(bare):
    done = run_bare(bare, f"{bare}/run.sh", "--no-install", "--data", f"{bare}/data")

    assert done.returncode == 1
    assert not (bare / "data").exists()
    assert not (bare / ".venv").exists()


def test_another_kind_of_machine_is_refused_before_anything_is_made(tmp_path):
    done = call(f"uname() {{ echo aarch64; }}; main --data {tmp_path}/data")

    assert done.returncode == 1
    assert "This machine is aarch64, and DS01 runs on x86-64" in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "data").exists()


def test_without_root_an_admin_is_told_what_to_do(bare):
    done = run_bare(
        bare,
        *(f"{bare}/run.sh", "--data", f"{bare}/data"),
        user=NOBODY if os.geteuid() == 0 else None,
    )

    assert done.returncode == 1
    assert "has to run as root" in done.stderr
    assert "docker.io\tthe engine" in done.stderr
    assert f"sudo {bare}/run.sh" in done.stderr
    assert "docs/deploy.md" in done.stderr


def test_a_lock_file_that_changed_is_installed_again(tmp_path):
    (tmp_path / ".ds01-made-from").write_text("something else\n")
    script = "venv_works() { true; }; python_is_ready && echo ready || echo not"

    assert call(script, VENV=tmp_path).stdout == "not\n"
    assert call(f"python_stamp > {tmp_path}/.ds01-made-from; {script}", VENV=tmp_path).stdout == (
        "ready\n"
    )


# -- pretended GPUs -------------------------------------------------------------------------------


def test_a_wrong_machine_is_refused_before_anything_is_made(tmp_path):
    done = run_sh("--data", f"{tmp_path}/data", "--pretend-gpus", "a100-80gb,mig=2x4g.40gb")

    assert done.returncode == 2
    assert "takes 1 at most" in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "data").exists()


def test_pretended_gpus_are_made_for_the_hub_and_said_to_be_pretended(tmp_path):
    find = "from ds01_spawner.gpus.nvml import Nvml; print(len(Nvml().read().inventory.devices))"
    done = call(
        f'cd {REPOSITORY}; make_pretended_gpus; "$VENV/bin/python" -c "{find}";'
        'echo "$DS01_PRETEND_GPUS $LD_LIBRARY_PATH"',
        DATA=tmp_path,
        PRETENDED_GPUS="a100-80gb:2,mig=7x1g.10gb@1",
    )
    assert done.returncode == 0, done.stderr
    said, found, variables = done.stdout.splitlines()
    assert "The GPUs are pretended" in said
    assert found == "9"
    directory = f"{tmp_path}/pretended-gpus"
    assert variables.split() == [directory, directory]


def test_a_forgotten_variable_pretends_nothing(tmp_path):
    done = call(
        "export DS01_PRETEND_GPUS=/somewhere; make_pretended_gpus; env | grep DS01_PRETEND",
        DATA=tmp_path,
    )
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_missing_compiler_is_listed_only_for_pretended_gpus(bare):
    listed = f"source {bare}/run.sh; PRETENDED_GPUS=%s; missing_here"

    assert "gcc\t" in run_bare(bare, "-c", listed % "a30").stdout
    assert "gcc\t" not in run_bare(bare, "-c", listed % "").stdout


# -- one Hub on one data directory ----------------------------------------------------------------


def test_a_second_run_on_the_same_data_is_refused(tmp_path):
    with (tmp_path / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711\n")
        lock.flush()
        done = call("lock_data; echo went on", DATA=tmp_path)

    assert done.returncode == 1
    assert f"A Hub on {tmp_path} runs already (processes: 4711 )" in done.stderr
    assert done.stdout == ""


def test_a_hub_that_outlives_its_script_keeps_the_lock(tmp_path):
    started = call("lock_data; setsid sleep 60 >/dev/null 2>&1 & echo $!", DATA=tmp_path)
    try:
        assert call("lock_data", DATA=tmp_path).returncode == 1
    finally:
        os.kill(int(started.stdout), signal.SIGKILL)
    freed = subprocess.run(["flock", "--wait", "10", tmp_path / "run.lock", "true"], timeout=60)
    assert freed.returncode == 0


def test_data_is_private(tmp_path):
    assert call("lock_data", DATA=tmp_path / "new").returncode == 0
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


# -- ports ----------------------------------------------------------------------------------------


def test_a_port_in_use_is_named_before_anything_starts():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        taken = call('check_port "The web page" 127.0.0.1 "$PORT" "Try another."', PORT=port)
    free = call('check_port "The web page" 127.0.0.1 "$PORT" "Try another."', PORT=port)

    assert taken.returncode == 1
    assert f"The web page cannot listen at 127.0.0.1, port {port}" in taken.stderr
    assert "Try another." in taken.stderr
    assert free.returncode == 0, free.stderr


def test_an_address_of_another_machine_is_refused():
    done = call('check_port "The web page" 192.0.2.1 18199 "Choose another."')

    assert done.returncode == 1
    assert "Cannot assign requested address" in done.stderr


@pytest.mark.parametrize(
    ("ip", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80/"),
        ("::1", "http://[::1]:80/"),
        ("0.0.0.0", f"http://{socket.gethostname()}:80/"),
    ],
)
def test_the_address_shown_can_be_opened(ip, url):
    assert call("url", IP=ip, PORT=80).stdout == url


# -- what a killed Hub leaves ---------------------------------------------------------------------


def left_behind(tmp_path: Path, name: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(["bash", "-c", f"exec -a {name} sleep 60"])
    (tmp_path / "proxy.pid").write_text(str(process.pid))
    return process


def test_the_proxy_of_a_killed_hub_is_stopped(tmp_path):
    process = left_behind(tmp_path, "configurable-http-proxy")
    settle = f"source {RUN_SH}; DATA='{tmp_path}'; settle_old_proxy"
    with subprocess.Popen(["bash", "-c", settle]) as settling:
        # Reaped at once, as its number lives on until then.
        assert process.wait(timeout=20) == -signal.SIGTERM
        assert settling.wait(timeout=20) == 0
    assert not (tmp_path / "proxy.pid").exists()


def test_a_stranger_with_the_old_proxys_number_is_left_alone(tmp_path):
    process = left_behind(tmp_path, "somebody-elses-program")
    try:
        assert call("settle_old_proxy", DATA=tmp_path).returncode == 0
        assert process.poll() is None
        # JupyterHub would stop whatever has the number that stands there.
        assert not (tmp_path / "proxy.pid").exists()
    finally:
        process.kill()
        process.wait()


def test_no_service_is_left_where_the_hub_does_not_start(tmp_path):
    portal, culler = (tmp_path / f"ds01_spawner.{name}.pid" for name in ("portal", "lifecycle"))
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/$3.pid\nexec sleep 60\n")
    python.chmod(0o755)
    done = call(
        f"node_directory() {{ echo {tmp_path}; }}; setsid() {{ return 1; }};"
        "hub_answers() { return 1; }; prepare_environment;"
        f'PATH="{tmp_path}:$PATH"; start_services;'
        f"until [[ -s {portal} && -s {culler} ]]; do sleep 0.05; done; start_hub",
        DATA=tmp_path,
    )
    assert done.returncode == 1
    assert "The Hub ended" in done.stderr
    for file in (portal, culler):
        assert not Path("/proc", file.read_text().strip()).exists()


# -- secrets --------------------------------------------------------------------------------------


def make_secrets(directory: Path) -> dict[str, str]:
    subprocess.run(
        [sys.executable, REPOSITORY / "scripts/make_secrets.py", directory], check=True, timeout=60
    )
    return {path.name: path.read_text().strip() for path in directory.iterdir()}


def test_secrets_are_private_long_and_made_once(tmp_path):
    directory = tmp_path / "secrets"
    first = make_secrets(directory)

    assert set(first) == {
        *("admin-password", "user-password", "cookie-secret"),
        *("portal-token", "culler-token", "proxy-token"),
    }
    assert len(set(first.values())) == 6
    assert len(first["admin-password"]) >= 32
    assert len(bytes.fromhex(first["cookie-secret"])) == 32
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
    assert make_secrets(directory) == first


def test_a_deleted_secret_is_made_anew_and_the_others_stay(tmp_path):
    directory = tmp_path / "secrets"
    first = make_secrets(directory)
    (directory / "user-password").unlink()
    second = make_secrets(directory)

    changed = {name for name in first if first[name] != second[name]}
    assert changed == {"user-password"}
