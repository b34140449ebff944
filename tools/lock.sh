#!/bin/sh
# Writes requirements.lock (what the programs need, and what installs them) and requirements-dev.lock (all of that,
# and what the tests need) and requirements-tools.lock (all of that, and what `make fuzz`, `make sbom` and `make audit`
# need) from pyproject.toml, and tests/asyncio-mqtt.lock (the MQTT client under its old name):
# one version of each package for every Python and processor we support, with the hashes of its files. Versions in
# the locks are kept; `tools/lock.sh --upgrade` takes newer ones.
set -eu
cd "$(dirname "$0")/.."
.venv/bin/python -m pip --disable-pip-version-check -qq install uv==0.13.8

compile() {
    .venv/bin/uv pip compile --universal --fork-strategy fewest --python-version 3.11 \
        --generate-hashes --no-annotate --quiet --custom-compile-command "make lock" "$@" >/dev/null
}

compile "$@" pyproject.toml --extra build --output-file requirements.lock
compile "$@" pyproject.toml --extra build --extra dev --extra traces --constraint requirements.lock --output-file requirements-dev.lock
compile "$@" pyproject.toml --extra build --extra dev --extra traces --extra tools --constraint requirements-dev.lock \
    --output-file requirements-tools.lock
printf '%s\n' 'asyncio-mqtt==0.16.2' 'paho-mqtt<2' | compile "$@" - --output-file tests/asyncio-mqtt.lock
