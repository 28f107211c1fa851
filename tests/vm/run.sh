#!/usr/bin/env bash
# Runs inside the virtual machine: installs the wheel, and runs pytest on the tests beside it.
set -euo pipefail
cd "$(dirname "$0")"

uname --kernel-name --kernel-release --operating-system
# Waits for the engine, which is still starting.
docker import /opt/ds01/container.tar ds01/debian:12 >/dev/null &
importing=$!
/opt/ds01/bin/python -m pip install --quiet --no-index --no-deps --no-compile ./*.whl
wait "$importing"

export DS01_SLICE_IMAGE=ds01/debian:12 DS01_SLOW=5
mapfile -d '' arguments <arguments
exec /opt/ds01/bin/python -m pytest -p no:cacheprovider "${arguments[@]}"
