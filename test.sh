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
all) parts=(unit docker vm gpu browser) ;;
long) parts=(unit docker vm gpu browser long) ;;
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
times=()
timed() {
    local name="$1" began=$SECONDS
    shift
    step "$name"
    "$@"
    times+=("$(printf '%5d s  %s' $((SECONDS - began)) "$name")")
}

pytest() { "$VENV/bin/python" -m pytest --durations=10 "$@"; }

short_in_vm="not long and not long_in_vm"
pytest_in_vm() { "$VENV/bin/python" -m tests.vm --durations=10 "$@"; }

# Beside the unit tests, which leave it a core and do not mind how long they take.
vm=
vm_log="$(mktemp)"
begin_vm() {
    # A group of its own, to be ended as a whole.
    set -m
    pytest_in_vm "$@" >"$vm_log" 2>&1 &
    vm=$!
    set +m
}
end_vm() {
    local status=0
    wait "$vm" || status=$?
    vm=
    cat "$vm_log"
    return "$status"
}

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

at_exit() {
    [[ -z "$vm" ]] || kill -- "-$vm"
    rm -f "$vm_log"
    printf '\nWhere the time went:\n'
    printf '%s\n' "${times[@]}"
}
trap at_exit EXIT

timed "set-up" set_up
for part in "${parts[@]}"; do
    case "$part" in
    unit)
        ! needs vm || begin_vm tests/vm tests/slices -m "$short_in_vm" "$@"
        timed "style and types" style
        timed "unit tests" pytest tests/unit -m "not long" "$@"
        # They use the core that the virtual machine leaves.
        ! needs docker || timed "images and runtime" build_images
        ! needs vm || timed "the rest of the tests in a virtual machine" end_vm
        ;;
    docker) timed "docker tests" pytest tests/docker tests/slices -m "not long" "$@" ;;
    vm)
        needs unit ||
            timed "tests in a virtual machine" pytest_in_vm tests/vm tests/slices -m "$short_in_vm" "$@"
        ;;
    gpu)
        # The engine of these tests borrows what the machine's own has built.
        timed "images and runtime to lend" build_images
        timed "gpu tests" pytest_in_namespace tests/gpu -m "not long" "$@"
        ;;
    browser) timed "browser tests" pytest tests/browser -m "not long" "$@" ;;
    long)
        timed "long tests" pytest tests --ignore tests/gpu -m long "$@"
        timed "long gpu tests" pytest_in_namespace tests/gpu -m long "$@"
        timed "long tests in a virtual machine" pytest_in_vm tests/slices -m "not ($short_in_vm)" "$@"
        ;;
    esac
done
