#!/usr/bin/env bash
# The story of CI runners that never see each other's layers, told by stock
# buildkitd and stock buildx: a build with 20 s of slow steps on runner one, then
# the same build on runner two, which is cold. Prints who ran each step, who got
# it from the cache, the seconds of both, and the factor.
#
#   integration/demo.sh        needs root, Rust and Go; installs the rest
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
say() { printf '%s\n' "$*" >&2; }
die() { say "demo: $*"; exit 1; }

[ "$(id -u)" = 0 ] || die "run as root: buildkitd mounts file systems and runs containers"
command -v cargo >/dev/null || die "cargo is missing: install Rust from https://rustup.rs"
"$here/tools/install.sh" demo
# shellcheck source=tools/versions.env
source "$here/tools/versions.env"
tools=${LAYERD_TOOLS:-$HOME/.cache/layerd/tools}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$HOME/.cache/layerd/target}
say "demo: building layerd"
cargo build --quiet --locked --manifest-path "$root/Cargo.toml" --bin layerd
layerd=$CARGO_TARGET_DIR/debug/layerd

work=$(mktemp -d "${TMPDIR:-/tmp}/layerd-demo-XXXXXX")
pids=()

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

seconds() { # builder, cache option: builds, prints how long it took
  local builder=$1 cache=$2 from=$EPOCHREALTIME
  say ""
  say "\$ docker buildx build --builder $builder $cache ."
  "$tools/buildx-$BUILDX_VERSION/buildx" build --builder "$builder" --progress plain "$cache" \
    --output "type=local,dest=$work/out-$builder" "$work/context" >"$work/$builder.log" 2>&1 </dev/null ||
    { cat "$work/$builder.log" >&2; die "the build on $builder failed"; }
  awk -v a="$from" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'
}

export LC_ALL=C BUILDX_CONFIG=$work/buildx DOCKER_CONFIG=$work/docker
cp -r "$root/testdata/demo" "$work/context"
"$root/testdata/make-base.sh" "$work/context/base.tar"
say "demo: starting two cold runners that share nothing but $work/shared"
runner runner-one
runner runner-two

first=$(seconds runner-one --cache-to=type=gha-compatible,url=local,mode=max)
second=$(seconds runner-two --cache-from=type=gha-compatible,url=local)

awk -v first="$first" -v second="$second" '
  # Lines of plain progress: "#7 [stage 1/2] RUN ...", "#7 CACHED", "#7 DONE 5.1s".
  FNR == 1 { build++ }
  match($0, /^#[0-9]+ \[[^]]+ [0-9]+\/[0-9]+\] /) {
    step = substr($0, index($0, " ") + 1)
    name[build, $1] = step
    if (!(step in known)) { known[step] = 1; order[++steps] = step }
  }
  ($2 == "CACHED" || $2 == "DONE") && ((build, $1) in name) {
    fate[build, name[build, $1]] = $2 == "CACHED" ? "from cache" : "ran " $3
  }
  END {
    printf "\n%-62s %-12s %-12s\n", "step", "runner one", "runner two"
    for (i = 1; i <= steps; i++) {
      step = order[i]
      shown = length(step) > 60 ? substr(step, 1, 57) "..." : step
      printf "%-62s %-12s %-12s\n", shown, fate[1, step], fate[2, step]
      if (fate[2, step] == "from cache") hits++
    }
    printf "%-62s %-12s %-12s\n\n", "whole build", first " s", second " s"
    printf "Runner two ran %d of %d steps, got %d from what runner one left, and was %.0f times as fast.\n", \
      steps - hits, steps, hits, first / second
  }
' "$work/runner-one.log" "$work/runner-two.log"
cmp "$work/out-runner-one/sum" "$work/out-runner-two/sum" || die "the two results differ"
echo "Both results are the same, byte for byte."
