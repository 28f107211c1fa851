#!/usr/bin/env bash
# Renews the lock files of what run.sh installs, of the images and of uv, to the newest
# versions that setup.cfg, requirements.in, proxy/package.json and the image's own list allow.
# Needs uv (pip install uv) and npm on PATH.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

options=(--upgrade --generate-hashes --no-header --no-annotate --quiet)

uv pip compile setup.cfg requirements.in --output-file requirements.lock \
    --universal --python-version 3.10 "${options[@]}"

for list in {datascience,pytorch,tensorflow,jax}/requirements jax/requirements-cpu; do
    uv pip compile "images/$list.in" --output-file "images/$list.lock" \
        --python-version 3.11 --python-platform x86_64-manylinux_2_28 --only-binary :all: \
        "${options[@]}"
done

uv pip compile images/uv/requirements.in --output-file images/uv/requirements.lock \
    --python-version 3.11 --only-binary :all: "${options[@]}"

# Without addresses: each machine fetches from its own registry.
npm --prefix proxy install --package-lock-only --omit-lockfile-registry-resolved
