#!/usr/bin/env bash
# Runs a command where its processes, mounts and network are its own, and end with it, however it
# ends. For tests that start an engine: two engines in one network take each other's rules away.
#
#   scripts/in_namespace.sh COMMAND [ARGUMENT ...]
set -euo pipefail

if [[ -z "${DS01_TEST_NAMESPACE:-}" ]]; then
    DS01_TEST_NAMESPACE=1 exec unshare --net --mount --pid --fork --kill-child --mount-proc \
        "$0" "$@"
fi
ip link set lo up
# Where every engine's containers have their sockets.
mkdir -p /run/containerd
mount -t tmpfs tmpfs /run/containerd
# Not exec: this shell is the namespace's first process, and takes in what others leave behind.
"$@"
