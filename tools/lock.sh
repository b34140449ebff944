#!/bin/sh
# Writes requirements.lock (what the programs need, and what installs them) and requirements-dev.lock (all of that,
# and what the tests need) from pyproject.toml: one version of each package for every Python and processor we
# support, with the hashes of its files. Kept versions stay as they are; `tools/lock.sh --upgrade` takes newer ones.
set -eu
cd "$(dirname "$0")/.."
.venv/bin/python -m pip --disable-pip-version-check -qq install uv==0.13.8

compile() {
    .venv/bin/uv pip compile pyproject.toml --universal --fork-strategy fewest --python-version 3.11 \
        --generate-hashes --no-annotate --quiet --custom-compile-command "make lock" "$@" >/dev/null
}

compile "$@" --extra build --output-file requirements.lock
compile "$@" --extra build --extra dev --constraint requirements.lock --output-file requirements-dev.lock
