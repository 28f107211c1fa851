#!/usr/bin/env bash
# Sets this machine up for DS01, as far as that is not done yet, and runs the Hub.
# ./run.sh --help says how to use it.
set -euo pipefail
shopt -s inherit_errexit

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/scripts/lib.sh"

IP=127.0.0.1
PORT=8000
DATA=/var/lib/ds01
INSTALL=yes
STOP_SERVERS=""
PRETENDED_GPUS=""
HUB_DEADLINE_S=60
HUB_PID=""
SERVICE_PIDS=()

usage() {
    cat <<'TEXT'
Usage: ./run.sh [options]

Sets this machine up for DS01, as far as that is not done yet, and runs the Hub until Ctrl-C.
Servers of users run on when the Hub stops, and the next run finds them.

  --port N         port of the web page (8000)
  --ip ADDRESS     address of the web page (127.0.0.1; 0.0.0.0 is all of this machine's)
  --data DIR       where everything that lasts lies (/var/lib/ds01)
  --no-install     install and build nothing; end with the list of what is missing
  --stop-servers   stop the users' servers too when the Hub stops
  --pretend-gpus SPEC
                   show GPUs that are not there, to look around and to test; such as
                   a100-80gb:2,mig=7x1g.10gb@1 (docs/pretended-gpus.md)
  --help           this text

Exit status: 0 stopped as asked, 1 something is missing or failed, 2 wrong usage.
How to put it on a real server: docs/deploy.md
TEXT
}

wrong_usage() {
    printf 'Error: %s\nRun ./run.sh --help for how to use it.\n' "$*" >&2
    exit 2
}

parse_options() {
    while (($#)); do
        local option="$1" value="" has_value=""
        shift
        # --port=N as well as --port N
        if [[ "$option" == --*=* ]]; then
            value="${option#*=}" option="${option%%=*}" has_value=yes
        fi
        case "$option" in
        --port | --ip | --data | --pretend-gpus)
            if [[ -z "$has_value" ]]; then
                (($#)) || wrong_usage "$option needs a value."
                value="$1"
                shift
            fi
            ;;
        *) [[ -z "$has_value" ]] || wrong_usage "$option takes no value." ;;
        esac
        case "$option" in
        --port) PORT="$value" ;;
        --ip) IP="$value" ;;
        --data) DATA="$value" ;;
        --no-install) INSTALL=no ;;
        --stop-servers) STOP_SERVERS=1 ;;
        --pretend-gpus)
            [[ -n "$value" ]] || wrong_usage "--pretend-gpus needs GPUs, such as a100-80gb:2."
            PRETENDED_GPUS="$value"
            ;;
        -h | --help) usage && exit 0 ;;
        *) wrong_usage "There is no option '$option'." ;;
        esac
    done
    check_options
}

check_options() {
    if ! [[ "$PORT" =~ ^[1-9][0-9]{0,4}$ ]] || ((PORT > 65535)); then
        wrong_usage "--port '$PORT' is not a port; give a number from 1 to 65535."
    fi
    [[ "$IP" =~ ^[0-9]+(\.[0-9]+){3}$ || "$IP" == *:* ]] ||
        wrong_usage "--ip '$IP' is not an address; give for example 127.0.0.1 or 0.0.0.0."
    [[ -n "$DATA" ]] || wrong_usage "--data needs a directory."
    # A colon separates the parts of a Docker mount.
    [[ "$DATA" != *[:$'\n']* ]] || wrong_usage "--data '$DATA': the path must not contain a colon."
    DATA="$(realpath -m -- "$DATA")"
    [[ ! -e "$DATA" || -d "$DATA" ]] || wrong_usage "--data '$DATA' is not a directory."
    check_pretended_gpus
}

# A machine without any Python gets one first; make_pretended_gpus then says the same.
check_pretended_gpus() {
    [[ -n "$PRETENDED_GPUS" ]] || return 0
    local python problem status=0
    python="$(system_python)"
    [[ -n "$python" ]] || return 0
    problem="$(PYTHONPATH="$REPO" "$python" -m ds01_spawner.pretend --check -- "$PRETENDED_GPUS" 2>&1)" ||
        status=$?
    ((status == 0)) || wrong_usage "--pretend-gpus '$PRETENDED_GPUS': $problem"
}

# All that is missing of the system's packages for what was asked for.
missing_here() {
    missing_packages
    [[ -z "$PRETENDED_GPUS" ]] || missing_compiler
}

# The runtime is built from packages for x86-64 alone.
refuse_other_machines() {
    local machine
    machine="$(uname -m)"
    [[ "$machine" == x86_64 ]] || die "This machine is $machine, and DS01 runs on x86-64 (x86_64) only."
}

# Without root nothing can be done but say what somebody with root has to do.
refuse_without_root() {
    ((EUID != 0)) || return 0
    {
        say "Error: run.sh has to run as root: it starts containers for other people and keeps them"
        say "apart with firewall rules. Ask an admin of this machine for this:"
        local missing
        missing="$(missing_here)"
        if [[ -n "$missing" ]]; then
            say "  - install the packages that are missing here; ./run.sh does it by itself:"
            say "$missing" | tr -d '?' | sed 's/^/      /'
        fi
        say "  - run it:                     sudo $REPO/run.sh"
        say "  - or run it as a service that starts with the machine: docs/deploy.md"
        say "You need no rights on this machine to use the web page."
    } >&2
    exit 1
}

# Held until the Hub ends, also if this script is killed: the Hub inherits it.
lock_data() {
    [[ -d "$DATA" ]] || install -d -m 0700 "$DATA"
    exec 9>>"$DATA/run.lock"
    flock -n 9 || die "A Hub on $DATA runs already (processes: $(tr '\n' ' ' <"$DATA/run.lock")). \
Stop it first, or choose another place with --data."
    echo $$ >"$DATA/run.lock"
}

# One list of all that --no-install would have to do, and the end.
list_missing() {
    local missing
    missing="$(missing_here)"
    if ! python_is_ready; then missing+=$'\n'"Python packages"$'\t'"requirements.lock, in .venv"; fi
    if ! proxy_is_ready; then missing+=$'\n'"proxy"$'\t'"configurable-http-proxy, in proxy/"; fi
    if ! engine_answers; then
        missing+=$'\n'"engine"$'\t'"no Docker engine answers"
    elif python_is_ready; then
        missing+=$'\n'"$(ds01 images build --check | sed 's/^/image\t/')"
        missing+=$'\n'"$(ds01 runtime build --check | sed 's/^/runtime\t/')"
        missing+=$'\n'"$(ds01 images needs)"
    fi
    missing="$(grep -v '^$' <<<"$missing" || true)"
    [[ -z "$missing" ]] || die "This is missing here, and --no-install forbids to get it:
$(tr -d '?' <<<"$missing" | sed 's/^/  - /')"
}

install_missing() {
    local missing
    missing="$(missing_here)"
    [[ -z "$missing" ]] || install_packages "$missing"
    start_engine "$DATA/dockerd.log"
    if ! python_is_ready; then
        step "Installing JupyterHub and its Python packages in $VENV (requirements.lock)"
        install_python
    fi
    if ! proxy_is_ready; then
        step "Installing configurable-http-proxy, which leads browsers to servers (proxy/)"
        install_proxy
    fi
    build_missing
}

build_missing() {
    local images runtime packages listed check
    # At the same time: Python takes a second or two to begin.
    listed="$(mktemp)"
    ds01 runtime build --check >"$listed" &
    check=$!
    images="$(ds01 images build --check)"
    wait "$check"
    runtime="$(<"$listed")"
    rm -f "$listed"
    [[ -n "$images$runtime" ]] || return 0
    check_disk
    packages="$(ds01 images needs)"
    [[ -z "$packages" ]] || install_packages "$packages"
    step "Building what servers are made of; this takes some minutes, once"
    ds01 images build
    ds01 runtime build
}

ds01() { "$VENV/bin/python" -m ds01_spawner.cli "$@" 9>&-; }

# The proxy of a Hub that was killed lives on, and JupyterHub stops whatever has the number in this
# file. After a reboot that may be anybody.
settle_old_proxy() {
    local pid_file="$DATA/proxy.pid" pid
    [[ -e "$pid_file" ]] || return 0
    pid="$(<"$pid_file")"
    if [[ "$pid" =~ ^[0-9]+$ && -e "/proc/$pid" ]] &&
        tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -q configurable-http-proxy; then
        step "Stopping the proxy that a Hub left behind (process $pid)"
        kill "$pid" 2>/dev/null || true
        local deadline=$((SECONDS + 5))
        while [[ -e "/proc/$pid" ]] && ((SECONDS < deadline)); do sleep 0.1; done
    fi
    rm -f "$pid_file"
}

# The same for services: they hold locks in this directory, and the portal would hold its port.
settle_old_services() {
    local process
    for process in /proc/[0-9]*; do
        # The first redirection holds for the second, too: a process may just have ended.
        if tr '\0' ' ' 2>/dev/null <"$process/cmdline" |
            grep -qE -- ' -m ds01_spawner\.(portal|lifecycle) ' &&
            [[ "$(readlink "$process/cwd")" == "$DATA" ]]; then
            step "Stopping a service that a Hub left behind (process ${process#/proc/})"
            kill "${process#/proc/}" 2>/dev/null || true
            local deadline=$((SECONDS + 5))
            while [[ -e "$process" ]] && ((SECONDS < deadline)); do sleep 0.1; done
        fi
    done
}

# $1: what is to listen, $2: address, $3: port, $4: what to do if it cannot.
check_port() {
    local reason
    reason="$("$VENV/bin/python" - "$2" "$3" 2>&1 <<'PYTHON'
import socket, sys
ip, port = sys.argv[1], int(sys.argv[2])
try:
    with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((ip, port))
except OSError as error:
    sys.exit(error.strerror)
PYTHON
    )" || die "$1 cannot listen at $2, port $3: $reason. $4"
}

check_ports() {
    check_port "The web page" "$IP" "$PORT" "Choose another --port or --ip."
    local another="If another Hub runs on this machine, choose another"
    [[ "${DS01_PORTAL_PORT:-8082}" == 0 ]] ||
        check_port "The portal" 0.0.0.0 "${DS01_PORTAL_PORT:-8082}" "$another DS01_PORTAL_PORT."
    check_port "The Hub" 0.0.0.0 "${DS01_HUB_PORT:-8081}" "$another DS01_HUB_PORT and DS01_NETWORK."
    check_port "The proxy" 127.0.0.1 "${DS01_PROXY_API_PORT:-8001}" "$another DS01_PROXY_API_PORT."
}

url() {
    local host="$IP"
    [[ "$host" != 0.0.0.0 && "$host" != :: ]] || host="$(hostname)"
    [[ "$host" != *:* ]] || host="[$host]"
    printf 'http://%s:%s/' "$host" "$PORT"
}

# The Hub is up when the proxy leads to it. Asking the proxy's API leaves no errors in the log, as
# asking for a page too early would.
hub_answers() {
    "$VENV/bin/python" - "${DS01_PROXY_API_PORT:-8001}" "$DATA/secrets/proxy-token" 2>/dev/null <<'PYTHON'
import http.client, json, pathlib, sys
port, token = int(sys.argv[1]), pathlib.Path(sys.argv[2]).read_text().strip()
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
connection.request("GET", "/api/routes", headers={"Authorization": f"token {token}"})
sys.exit("/" not in json.load(connection.getresponse()))
PYTHON
}

# shellcheck disable=SC2329  # called by the trap
stop_hub() {
    [[ -n "$HUB_PID" ]] || exit 0
    say ""
    if [[ -n "$STOP_SERVERS" ]]; then
        step "Stopping the Hub and the users' servers"
    else
        step "Stopping the Hub; servers of users run on"
    fi
    stop_services
    kill -TERM "$HUB_PID" 2>/dev/null || true
    while kill -0 "$HUB_PID" 2>/dev/null; do wait "$HUB_PID" || true; done
    exit 0
}

# The lab edits its copy, which is never written again.
place_policy() {
    [[ ! -e "$DATA/policy" ]] || return 0
    step "Putting an example of a policy into $DATA/policy, for you to change"
    # Whole or not at all: a Hub that finds half of it refuses to start.
    rm -rf "$DATA/policy.new"
    cp -R "$REPO/packaging/policy" "$DATA/policy.new"
    mv "$DATA/policy.new" "$DATA/policy"
}

# A directory that stands for a machine with GPUs, for the Hub alone.
make_pretended_gpus() {
    # Whoever has not asked for it here must not get it from a forgotten variable.
    unset DS01_PRETEND_GPUS
    local directory="$DATA/pretended-gpus"
    # Whether it is there tells ds01 gpus which GPUs this Hub sees.
    if [[ -z "$PRETENDED_GPUS" ]]; then
        rm -rf "$directory"
        return 0
    fi
    step "The GPUs are pretended: nothing can be computed on them ($PRETENDED_GPUS)"
    quietly "$VENV/bin/python" -m ds01_spawner.pretend -- "$PRETENDED_GPUS" "$directory"
    export DS01_PRETEND_GPUS="$directory"
    export LD_LIBRARY_PATH="$directory${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
}

# What the Hub and its services find around them.
prepare_environment() {
    export DS01_DATA="$DATA" DS01_IP="$IP" DS01_PORT="$PORT" DS01_STOP_SERVERS="$STOP_SERVERS"
    PATH="$VENV/bin:$(node_directory):$PATH"
    cd "$DATA"
    trap stop_hub INT TERM HUP
    # What they write is nobody else's to read, wherever --data lies.
    umask 077
    # Every server may hold connections to them: the usual 1024 would let one use up all.
    ulimit -Sn "$(ulimit -Hn)"
}

# Services beside the Hub: the portal's pages, and what stops idle servers.
start_services() {
    [[ "${DS01_PORTAL_PORT:-8082}" == 0 ]] || start_service "The portal" ds01_spawner.portal
    start_service "The service that stops idle servers" ds01_spawner.lifecycle
}

# $1: what it is, $2: its module. One that ends is started again, and the Hub goes on meanwhile.
start_service() {
    (
        service="" pause=1
        trap '[[ -z "$service" ]] || kill "$service" 2>/dev/null; wait; exit 0' TERM
        while :; do
            began=$SECONDS
            python -I -m "$2" "$REPO/jupyterhub_config.py" </dev/null &
            service=$!
            wait "$service" || true
            # Nobody to start it for.
            kill -0 $$ 2>/dev/null || exit 0
            ((SECONDS - began < 60)) || pause=1
            warn "$1 ended; it is started again in $pause s."
            # In the background, so that a signal is heard meanwhile.
            sleep "$pause" &
            wait $!
            ((pause >= 60)) || pause=$((2 * pause))
        done
    ) 9>&- &
    SERVICE_PIDS+=("$!")
}

stop_services() {
    local pid
    for pid in "${SERVICE_PIDS[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in "${SERVICE_PIDS[@]}"; do wait "$pid" 2>/dev/null || true; done
    SERVICE_PIDS=()
}

start_hub() {
    # A session of its own: Ctrl-C reaches only this script, which tells the Hub once.
    setsid jupyterhub -f "$REPO/jupyterhub_config.py" </dev/null &
    HUB_PID=$!
    echo "$HUB_PID" >>"$DATA/run.lock"
    local deadline=$((SECONDS + HUB_DEADLINE_S))
    until hub_answers; do
        if ! kill -0 "$HUB_PID" 2>/dev/null; then
            stop_services
            die "The Hub ended; its last lines above say why."
        fi
        ((SECONDS < deadline)) || warn "The Hub does not answer after $HUB_DEADLINE_S s; still waiting."
        ((SECONDS < deadline)) || deadline=$((SECONDS + HUB_DEADLINE_S))
        sleep 0.2
    done
}

say_where() {
    say ""
    say "DS01 is ready:     $(url)"
    # Not into the system's journal, which more people read.
    if [[ "${JOURNAL_STREAM:-}" == "$(stat -L -c %d:%i /dev/fd/1)" ]]; then
        say "Passwords:         in $DATA/secrets"
    else
        say "Users log in with: any name, password $(<"$DATA/secrets/user-password")"
        say "The admin with:    admin, password $(<"$DATA/secrets/admin-password")"
    fi
    [[ -z "$PRETENDED_GPUS" ]] || say "GPUs:              pretended, $PRETENDED_GPUS; .venv/bin/ds01 gpus --data $DATA shows them"
    say "Data:              $DATA (the passwords are in secrets/)"
    say "Stop the Hub:      Ctrl-C"
    [[ "$IP" == 127.* || "$IP" == ::1 ]] ||
        warn "passwords cross the network unencrypted; put a TLS proxy in front (docs/deploy.md)."
}

main() {
    parse_options "$@"
    refuse_other_machines
    # Debian's plain "su" leaves these out, and with them dockerd and iptables.
    PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
    refuse_without_root
    umask 022
    [[ "$INSTALL" == yes ]] || list_missing
    lock_data
    [[ "$INSTALL" == no ]] || install_missing
    warn_without_live_restore
    settle_old_proxy
    settle_old_services
    check_ports
    "$VENV/bin/python" "$REPO/scripts/make_secrets.py" "$DATA/secrets"
    ds01 network setup
    place_policy
    make_pretended_gpus
    step "Starting the Hub"
    prepare_environment
    start_services
    start_hub
    say_where
    # Ends when the Hub does; a signal ends it in stop_hub.
    local status=0
    wait "$HUB_PID" || status=$?
    stop_services
    die "The Hub ended by itself (status $status); its last lines above say why."
}

# Not when sourced: tests call the functions one by one.
[[ "${BASH_SOURCE[0]}" != "$0" ]] || main "$@"
