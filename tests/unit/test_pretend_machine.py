"""The directory that stands for a machine with GPUs, and the command that makes one."""

import subprocess
import sys
from pathlib import Path

import pytest

from ds01_spawner import pretend as pretended
from ds01_spawner.gpus.nvml import Nvml
from ds01_spawner.pretend import build
from ds01_spawner.pretend.__main__ import main
from ds01_spawner.pretend.machine import Machine
from ds01_spawner.pretend.partition import SpecError

from .nvidia import run_python

SPEC = "a100-80gb:3,mig=3g.40gb/1c.2c+2x2g.20gb@1"
LIST = """
import pynvml
pynvml.nvmlInit()
for index in range(pynvml.nvmlDeviceGetCount()):
    print(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index)))
"""


def test_a_process_with_its_environment_finds_the_gpus(tmp_path):
    machine = Machine(tmp_path / "gpus", "a100-80gb:2;rtx-4090")
    found = run_python(LIST, **machine.environment()).split()

    assert found == [machine.gpu(index) for index in range(3)]
    assert set(machine.environment()) == {"DS01_PRETEND_GPUS", "LD_LIBRARY_PATH"}


def test_the_librarys_place_alone_is_enough(tmp_path):
    machine = Machine(tmp_path / "gpus", "a30")

    assert run_python(LIST, library=machine.directory).split() == [machine.gpu(0)]


def test_the_variable_alone_is_enough_for_our_own_reader(tmp_path):
    machine = Machine(tmp_path / "gpus", "a30")
    read = "from ds01_spawner.gpus.nvml import Nvml; print(Nvml().read().inventory.devices[0].uuid)"

    assert run_python(read, DS01_PRETEND_GPUS=str(machine.directory)).strip() == machine.gpu(0)


def test_the_same_spec_makes_the_same_uuids(tmp_path):
    one, other = (Machine(tmp_path / name, SPEC) for name in ("one", "other"))

    assert one.uuids == other.uuids
    assert len(set(one.uuids)) == len(one.uuids) == 7
    # A GPU is the same however it and the others are partitioned.
    assert Machine(tmp_path / "third", "a100-80gb:3").uuids == tuple(map(one.gpu, range(3)))


def test_capabilities_have_the_shape_of_the_drivers(tmp_path):
    machine = Machine(tmp_path / "gpus", SPEC)
    root = machine.directory / pretended.CAPABILITIES
    files = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())

    gi = [device.instance for device in machine.state.gpus[1].mig]
    assert gi == [2, 2, 3, 4]
    assert files == [
        "gpu1/mig/gi2/access",
        "gpu1/mig/gi2/ci0/access",
        "gpu1/mig/gi2/ci1/access",
        "gpu1/mig/gi3/access",
        "gpu1/mig/gi3/ci0/access",
        "gpu1/mig/gi4/access",
        "gpu1/mig/gi4/ci0/access",
        "mig/config",
        "mig/monitor",
    ]
    minors = [(root / file).read_text().splitlines()[0] for file in files]
    assert all(line.startswith("DeviceFileMinor: ") for line in minors)
    assert len(set(minors)) == len(files)
    machine.partition(1, "7x1g.10gb")
    assert len(list(root.glob("gpu1/mig/gi*/ci0/access"))) == 7
    machine.partition(1, "")
    assert not (root / "gpu1").exists()


def test_nothing_is_left_lying_about(tmp_path):
    machine = Machine(tmp_path / "gpus", SPEC)
    machine.partition(1, "7x1g.10gb")
    machine.add_process(0, 1)
    Machine(tmp_path / "gpus", "rtx-4090")

    assert sorted(path.name for path in machine.directory.iterdir()) == [
        "capabilities",
        "libnvidia-ml.so.1",
        "state",
    ]


def test_every_change_is_seen_in_the_next_call(pretend):
    machine = pretend("a100-80gb")
    nvml = Nvml()
    for busy in range(100):
        machine.set_utilisation(0, busy / 100)
        assert nvml.utilisation() == {machine.gpu(0): pytest.approx(busy / 100)}


def test_trouble_that_a_gpu_cannot_have_is_refused(tmp_path):
    machine = Machine(tmp_path, "rtx-4090;a100-80gb")
    with pytest.raises(ValueError, match="remaps no rows"):
        machine.set_health(0, remap_failure=True)
    with pytest.raises(ValueError, match="retires no pages"):
        machine.set_health(1, retired_pending=True)
    with pytest.raises(ValueError, match="has no MIG"):
        machine.set_mig_mode(0, True, True)
    with pytest.raises(SpecError, match="has no profile"):
        machine.partition(1, "1g.5gb")
    with pytest.raises(KeyError):
        machine.add_process("GPU-of-nobody", 1)


def test_a_wrong_spec_makes_nothing(tmp_path):
    with pytest.raises(SpecError):
        Machine(tmp_path / "gpus", "a100-80gb,mig=8x1g.10gb")

    assert not (tmp_path / "gpus").exists()


def test_a_process_knows_whether_its_gpus_are_pretended(monkeypatch):
    monkeypatch.delenv("DS01_PRETEND_GPUS", raising=False)
    assert pretended.directory() is None
    monkeypatch.setenv("DS01_PRETEND_GPUS", "/somewhere")
    assert pretended.directory() == Path("/somewhere")


def test_the_library_compiles_without_a_warning(tmp_path):
    command = [*build.command(tmp_path / "library"), "-Werror"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_library_shows_nothing_but_nvmls_names(tmp_path):
    library = build.build()
    listed = subprocess.run(
        ["nm", "--dynamic", "--defined-only", library],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    names = [line.split()[-1] for line in listed.stdout.splitlines()]

    assert "nvmlInitWithFlags" in names
    assert {name for name in names if not name.startswith("nvml")} == {"ds01_pretended"}


def test_the_library_is_compiled_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = build.build()
    monkeypatch.setenv("PATH", "")

    assert build.build() == made
    assert list(made.parent.iterdir()) == [made]


def test_a_missing_compiler_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(build.BuildError, match="apt-get install gcc libc6-dev"):
        build.build()


def test_the_command_makes_a_directory_and_says_what_to_set(tmp_path, capsys):
    assert main(["a100-80gb:2", str(tmp_path / "gpus")]) == 0

    assert f"DS01_PRETEND_GPUS={tmp_path}/gpus" in capsys.readouterr().out
    assert (tmp_path / "gpus" / "libnvidia-ml.so.1").exists()


@pytest.mark.parametrize("options", [["--check"], ["gpus"]])
def test_the_command_refuses_a_wrong_spec(tmp_path, monkeypatch, capsys, options):
    monkeypatch.chdir(tmp_path)

    assert main(["a100-80gb,mig=8x1g.10gb", *options]) == 2

    assert "takes 7 at most" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_checking_a_spec_needs_nothing_but_python(tmp_path):
    """run.sh checks it before anything is installed."""
    repository = Path(__file__).parents[2]
    command = [
        "-I",
        "-S",
        "-c",
        f"import sys; sys.path.insert(0, {str(repository)!r});"
        "from ds01_spawner.pretend.__main__ import main; sys.exit(main(sys.argv[1:]))",
    ]
    done = subprocess.run(
        [sys.executable, *command, "--check", "a100-80gb"], env={}, timeout=60, check=False
    )
    assert done.returncode == 0
