#!/usr/bin/env bash
# Builds the extension of JupyterLab from labextension/ into the runtime, or into the directory that
# is given. The result is committed, so that a machine that builds the runtime needs none of this;
# the same source gives the same files (tests/unit/test_labextension.py).
set -euo pipefail
shopt -s inherit_errexit

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source="$REPO/labextension"
result="$(realpath -m "${1:-$REPO/ds01_spawner/runtime/image/labextension}")"

node="$(node_directory)"
PATH="$node:$PATH"
stamp="$source/node_modules/.ds01-made-from"
if [[ "$(cat "$stamp" 2>/dev/null)" != "$(sha256sum <"$source/package-lock.json")" ]]; then
    quietly node "$node/../lib/node_modules/npm/bin/npm-cli.js" --prefix "$source" \
        ci --ignore-scripts --no-audit --no-fund
    sha256sum <"$source/package-lock.json" >"$stamp"
fi

cd "$source"
rm -rf lib
node node_modules/typescript/bin/tsc
quietly node --test test/words.test.mjs
quietly node node_modules/@jupyter/builder/lib/build-labextension.js \
    --core-package-file node_modules/@jupyterlab/core-meta/core.package.json "$source"

rm -rf "$result"
mkdir -p "$result/static"
cp built/package.json "$result/"
cp built/static/*.????????????????.js built/static/third-party-licenses.json "$result/static/"
# Which sources the committed files are from, to see without Node that these are the ones.
if (($# == 0)); then
    find package.json package-lock.json tsconfig.json bundle.config.js src style -type f |
        LC_ALL=C sort | xargs sha256sum >built-from.sha256
fi
