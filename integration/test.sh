#!/usr/bin/env bash
# Everything that CI runs: format, lints, documentation, unit and property
# tests, and the integration tests against real BuildKit. About 60 minutes on a
# new machine with two cores, a fraction of that on a warm one.
#
#   integration/test.sh [--full]     --full adds a soak of 30 minutes, and entries of 5 GB
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$(dirname "$here")"
full=
case ${1:-} in
  '') ;;
  --full) full=1 ;;
  *) echo "usage: integration/test.sh [--full]" >&2; exit 2 ;;
esac

command -v cargo >/dev/null || { echo "cargo is missing: install Rust from https://rustup.rs" >&2; exit 1; }
"$here/tools/install.sh" test
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$HOME/.cache/layerd/target}
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}

step() { printf '\n== %s\n' "$*" >&2; "$@"; }

step cargo fmt --check
step cargo clippy --locked --all-targets -- -D warnings
RUSTDOCFLAGS="-D warnings" step cargo doc --locked --no-deps --document-private-items
if cargo deny --version >/dev/null 2>&1; then step cargo deny --offline check bans licenses sources; fi
step cargo test --locked --lib --bins
step cargo test --locked --test integration
# Where buildkitd can't pull, the session carries: the same promises hold.
LAYERD_IMPORT_CARRIER=session step cargo test --locked --test integration -- story:: places:: imports:: parallel:: failopen:: union:: --skip history::
if [ -n "$full" ]; then
  LAYERD_SOAK_MINUTES=30 step cargo test --locked --test integration -- --nocapture soak::
  # Entries of 5 GB: the disk needs 15 GB for them.
  LAYERD_HUB_FULL=1 step cargo test --locked --test integration -- --nocapture --test-threads=1 hub:: collect::churn gha::memory gha::large
fi
