#!/usr/bin/env bash
# Sets up what the tests need, and runs them.
#
#   ./test.sh              everything that belongs to a change: unit, docker, vm, gpu, browser
#   ./test.sh unit         style, types, and what needs no engine
#   ./test.sh docker       with a real engine
#   ./test.sh vm           in a virtual machine with systemd, cgroup v2 and an engine that uses both
#   ./test.sh gpu          with an engine of its own and what stands in for GPUs
#   ./test.sh browser      in Chromium
#   ./test.sh long         soaks, beside all of the above
#   ./test.sh docker -k X  more words go to pytest
set -euo pipefail

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/scripts/lib.sh"
cd "$REPO"

part="${1:-all}"
[[ $# -eq 0 ]] || shift
case "$part" in
all | long) parts=(unit docker vm gpu browser) ;;
unit | docker | vm | gpu | browser) parts=("$part") ;;
*) die "There is no part '$part': unit, docker, vm, gpu, browser, long, or nothing for all but long." ;;
esac

needs() { [[ " ${parts[*]} " == *" $1 "* ]]; }

# Prints "package<TAB>why" for each package that only the tests need.
missing_test_packages() {
    have git || printf 'git\tthe tests set a git identity\n'
    missing_compiler
    if needs vm; then
        have qemu-system-x86_64 || printf 'qemu-system-x86\truns the virtual machine\n'
        have mmdebstrap || printf 'mmdebstrap\tmakes the virtual machine from packages\n'
        have mkfs.ext4 || printf 'e2fsprogs\tmakes the disk of the virtual machine\n'
    fi
    if needs gpu; then
        have ip || printf 'iproute2\ta network for the tests alone\n'
    fi
    if needs docker || needs gpu || needs browser; then
        have debootstrap || printf 'debootstrap\tmakes the test images\n'
    fi
    if needs browser; then
        [[ -x /usr/bin/chromium ]] || printf 'chromium\tthe browser\n'
        fc-list 2>/dev/null | grep -q . || printf 'fonts-dejavu-core\ttext in the browser\n'
    fi
}

set_up() {
    local missing
    missing="$(missing_packages && missing_test_packages)"
    if [[ -n "$missing" ]]; then
        [[ $EUID -eq 0 ]] || die "These packages are missing, and installing needs root:
$missing"
        install_packages "$missing"
    fi
    python_is_ready || install_python
    local stamp="$VENV/.ds01-tests-made-from"
    if ! sha256sum --status --check "$stamp" 2>/dev/null; then
        quietly "$VENV/bin/python" -m pip --disable-pip-version-check --quiet install \
            --require-hashes --only-binary :all: -r requirements-test.lock
        sha256sum requirements.lock requirements-test.lock >"$stamp"
    fi
    if needs docker || needs gpu || needs browser; then
        proxy_is_ready || install_proxy
        start_engine "${TMPDIR:-/tmp}/ds01-test-dockerd.log"
    fi
}

# Runs a command and notes how long it took. $1: what it is called in the list at the end.
times="$(mktemp)"
timed() {
    local name="$1" began=$SECONDS
    shift
    step "$name"
    "$@"
    printf '%5d s  %s\n' $((SECONDS - began)) "$name" >>"$times"
}

pytest() { "$VENV/bin/python" -m pytest --durations=10 "$@"; }

short_in_vm="not long and not long_in_vm"
pytest_in_vm() { "$VENV/bin/python" -m tests.vm --durations=10 "$@"; }

build_images() {
    "$VENV/bin/ds01" images build
    "$VENV/bin/ds01" runtime build
}

# Two engines in one network take each other's rules away.
pytest_in_namespace() {
    scripts/in_namespace.sh "$VENV/bin/python" -m pytest --durations=10 "$@"
}

style() {
    "$VENV/bin/ruff" check .
    "$VENV/bin/ruff" format --check .
    "$VENV/bin/mypy"
    "$VENV/bin/shellcheck" --external-sources run.sh test.sh .ci/run scripts/*.sh \
        tests/vm/run.sh tests/vm/root/usr/local/sbin/*
}

unit_part() {
    timed "style and types" style
    timed "unit tests" pytest tests/unit -m "not long" "$@"
}
docker_part() { timed "docker tests" pytest tests/docker tests/slices -m "not long" "$@"; }
vm_part() {
    timed "tests in a virtual machine" pytest_in_vm tests/vm tests/slices -m "$short_in_vm" "$@"
}
# The engine of these tests borrows what the machine's own has built.
images_part() { timed "images and runtime" build_images; }
gpu_part() { timed "gpu tests" pytest_in_namespace tests/gpu -m "not long" "$@"; }
browser_part() { timed "browser tests" pytest tests/browser -m "not long" "$@"; }
long_part() {
    timed "long tests" pytest tests --ignore tests/gpu -m long "$@"
    timed "long gpu tests" pytest_in_namespace tests/gpu -m long "$@"
    timed "long tests in a virtual machine" pytest_in_vm tests/slices -m "not ($short_in_vm)" "$@"
}

# Tests wait more than they compute: the second lane takes the core that the first one leaves.
work="$(mktemp -d)"
lanes=()
first_lane() {
    unit_part "$@"
    images_part
    touch "$work/images-are-built"
    docker_part "$@"
}
second_lane() {
    vm_part "$@"
    until [[ -e "$work/images-are-built" ]]; do sleep 1; done
    gpu_part "$@"
    browser_part "$@"
}
begin_lane() {
    # A group of its own, to be ended as a whole.
    set -m
    "$@" &
    lanes+=("$!")
    set +m
}
in_lanes() {
    local status=0
    begin_lane first_lane "$@"
    begin_lane second_lane "$@" >"$work/second-lane" 2>&1
    wait "${lanes[0]}" || status=$?
    lanes=("${lanes[1]}")
    if [[ -e "$work/images-are-built" ]]; then
        wait "${lanes[0]}" || status=$?
        lanes=()
    fi
    cat "$work/second-lane"
    return "$status"
}

at_exit() {
    local lane
    for lane in "${lanes[@]}"; do
        kill -- "-$lane" 2>/dev/null || true
    done
    printf '\nWhere the time went:\n'
    cat "$times"
    rm -rf "$work" "$times"
}
trap at_exit EXIT

timed "set-up" set_up
case "$part" in
all) in_lanes "$@" ;;
long)
    in_lanes "$@"
    long_part "$@"
    ;;
gpu)
    images_part
    gpu_part "$@"
    ;;
*) "${part}_part" "$@" ;;
esac
