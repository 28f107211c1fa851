#!/usr/bin/env bash
# Renews the lock files of what run.sh installs and of the data-science image, to the newest
# versions that setup.cfg, requirements.in, proxy/package.json and the image's own list allow.
# Needs uv (pip install uv) and npm on PATH.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

options=(--upgrade --generate-hashes --no-header --no-annotate --quiet)

uv pip compile setup.cfg requirements.in --output-file requirements.lock \
    --universal --python-version 3.10 "${options[@]}"

uv pip compile images/datascience/requirements.in \
    --output-file images/datascience/requirements.lock \
    --python-version 3.11 --python-platform x86_64-manylinux_2_28 --only-binary :all: \
    "${options[@]}"

# Without addresses: each machine fetches from its own registry.
npm --prefix proxy install --package-lock-only --omit-lockfile-registry-resolved
