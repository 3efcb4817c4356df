#!/usr/bin/env bash
# The benchmarks: builds layerd as it is released, measures it beside BuildKit's
# own caches, and writes docs/benchmarks.md. Half an hour on two cores; the
# figures are worth what the machine does besides.
#
#   integration/bench.sh [MEASUREMENT...] [--rounds N]
#   integration/bench.sh --quick     a try: small builds, one round, writes nothing
#   integration/bench.sh --help      the measurements
#
# Needs root, Rust and Go; installs the rest.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$(dirname "$here")"
[ "$(id -u)" = 0 ] || { echo "run as root: buildkitd mounts file systems and runs containers" >&2; exit 1; }
command -v cargo >/dev/null || { echo "cargo is missing: install Rust from https://rustup.rs" >&2; exit 1; }
"$here/tools/install.sh" bench
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$HOME/.cache/layerd/target}
exec cargo bench --locked --bench sidecar -- "$@"
