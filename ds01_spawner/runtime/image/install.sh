#!/bin/sh
# Install the locked packages: the server's into /build/server (a virtual environment), the kernel
# packs into /build/kernels/cpXY, pip into /build/pip.
set -eu

PLATFORM=x86_64-manylinux_2_28

# The site's certificates and package index reach a build as secrets, where it has any.
if [ -s /run/secrets/ca ]; then
    export PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca
fi
setting() { sed -n "s/^$1 *= *//p" /run/secrets/pip 2>/dev/null || true; }
index=$(setting index-url)
if [ -n "$index" ]; then export UV_DEFAULT_INDEX="$index"; fi
more=$(setting extra-index-url)
if [ -n "$more" ]; then export UV_INDEX="$more"; fi

python3 -m venv /build/tools
PIP_CONFIG_FILE=/run/secrets/pip /build/tools/bin/pip install --quiet \
    --no-deps --require-hashes --only-binary :all: --requirement /build/locks/uv.lock

uv_install() {
    /build/tools/bin/uv pip install --quiet --no-cache --link-mode copy \
        --no-deps --require-hashes --only-binary :all: "$@"
}

/build/tools/bin/uv venv --quiet --python /usr/bin/python3.11 /build/server
uv_install --python /build/server/bin/python --requirements /build/locks/server.lock
for lock in /build/locks/cp*.lock; do
    tag=$(basename "$lock" .lock)
    uv_install --target "/build/kernels/$tag" --python /usr/bin/python3.11 \
        --python-version "3.${tag#cp3}" --python-platform "$PLATFORM" --requirements "$lock"
done
uv_install --target /build/pip --python /usr/bin/python3.11 --python-version 3.9 \
    --requirements /build/locks/pip.lock
