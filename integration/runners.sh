#!/usr/bin/env bash
# Runners for the demo, to be sourced: each is a buildkitd of its own with an
# empty root, and a sidecar in front. What is started here ends, by its process
# id, with the script.
#
#   name=demo; source integration/runners.sh

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
say() { printf '%s\n' "$*" >&2; }
die() { say "$name: $*"; exit 1; }

[ "$(id -u)" = 0 ] || die "run as root: buildkitd mounts file systems and runs containers"
command -v cargo >/dev/null || die "cargo is missing: install Rust from https://rustup.rs"
# shellcheck source=tools/versions.env
source "$here/tools/versions.env"
tools=${LAYERD_TOOLS:-$HOME/.cache/layerd/tools}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$HOME/.cache/layerd/target}

work=$(mktemp -d "${TMPDIR:-/tmp}/layerd-$name-XXXXXX")
pids=()
export LC_ALL=C BUILDX_CONFIG=$work/buildx DOCKER_CONFIG=$work/docker

finish() {
  trap - EXIT INT TERM
  local pid
  # The last started first: the sidecars before the daemons behind them.
  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
    pid=${pids[i]}
    kill "$pid" 2>/dev/null || continue
    wait "$pid" 2>/dev/null || true
  done
  awk -v below="$work/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo | sort -r | xargs -r umount -l
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

until_true() { # what, command...
  local what=$1 tries
  shift
  for ((tries = 0; tries < 600; tries++)); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.05
  done
  tail -n 20 "$work"/*.log >&2 || true
  die "waited in vain: $what"
}

# A runner: its own buildkitd with an empty root, and a sidecar in front. All
# that the two runners share is the sidecars' data directory.
runner() { # name
  local dir=$work/$1
  mkdir -p "$dir/tmp"
  : >"$dir/buildkitd.toml"
  TMPDIR=$dir/tmp "$tools/buildkit-$BUILDKIT_VERSION/buildkitd" --config "$dir/buildkitd.toml" --root "$dir/root" \
    --addr "unix://$dir/buildkitd.sock" --otel-socket-path "$dir/otel.sock" \
    --containerd-worker=false --oci-worker-net=host >"$work/$1-buildkitd.log" 2>&1 &
  pids+=($!)
  until_true "buildkitd of $1" "$tools/buildkit-$BUILDKIT_VERSION/buildctl" --addr "unix://$dir/buildkitd.sock" debug workers
  "$layerd" sidecar --listen "unix://$dir/sidecar.sock" --buildkitd "unix://$dir/buildkitd.sock" \
    --data-dir "$work/shared" >"$dir/ready" 2>"$work/$1-sidecar.log" &
  pids+=($!)
  until_true "sidecar of $1" grep -q '^ready ' "$dir/ready"
  "$tools/buildx-$BUILDX_VERSION/buildx" create --name "$1" --driver remote "unix://$dir/sidecar.sock" >/dev/null
}

# Builds layerd, and sets $layerd.
build_layerd() {
  say "$name: building layerd (a few minutes the first time)"
  cargo build --quiet --locked --manifest-path "$root/Cargo.toml" --bin layerd
  layerd=$CARGO_TARGET_DIR/debug/layerd
}

# Lays out what the demo builds, and sets $context.
make_context() {
  context=$work/context
  cp -r "$root/testdata/demo" "$context"
  "$root/testdata/make-base.sh" "$context/base.tar"
}
