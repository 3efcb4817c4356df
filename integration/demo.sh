#!/usr/bin/env bash
# The story of CI runners that never see each other's layers, told by stock
# buildkitd and stock buildx: a build with 20 s of slow steps on runner one, then
# the same build on runner two, which is cold. Prints who ran each step, who got
# it from the cache, the seconds of both, and the factor.
#
#   integration/demo.sh        needs root, Rust and Go; installs the rest
set -euo pipefail

name=demo
source "$(dirname "${BASH_SOURCE[0]}")/runners.sh"
"$here/tools/install.sh" demo
build_layerd

seconds() { # builder, cache option: builds, prints how long it took
  local builder=$1 cache=$2 from=$EPOCHREALTIME
  say ""
  say "\$ docker buildx build --builder $builder $cache ."
  "$tools/buildx-$BUILDX_VERSION/buildx" build --builder "$builder" --progress plain "$cache" \
    --output "type=local,dest=$work/out-$builder" "$context" >"$work/$builder.log" 2>&1 </dev/null ||
    { cat "$work/$builder.log" >&2; die "the build on $builder failed"; }
  awk -v a="$from" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'
}

make_context
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
  # A cached step is done once more when its layers are pulled; one that could
  # not be loaded is an error, and then runs.
  ((build, $1) in name) && $2 == "CACHED" { fate[build, name[build, $1]] = "from cache" }
  ((build, $1) in name) && $2 == "ERROR" { delete fate[build, name[build, $1]] }
  ((build, $1) in name) && $2 == "DONE" && fate[build, name[build, $1]] != "from cache" {
    fate[build, name[build, $1]] = "ran " $3
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
