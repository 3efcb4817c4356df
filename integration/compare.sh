#!/usr/bin/env bash
# How a cold runner fares with each kind of cache, in one run: the demo's build
# on runner one with an export, then on a new, empty runner with the import, for
# every kind, three times over; the median of the seconds, and the steps that
# came from the cache.
#
#   integration/compare.sh        needs root, Rust and Go; installs the rest
set -euo pipefail

name=compare
source "$(dirname "${BASH_SOURCE[0]}")/runners.sh"
"$here/tools/install.sh" test
build_layerd
make_context

port=$((20000 + RANDOM % 20000))
mkdir -p "$work/registry"
cat >"$work/registry.yml" <<YML
version: 0.1
storage: { filesystem: { rootdirectory: $work/registry } }
http: { addr: "127.0.0.1:$port" }
YML
docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
pids+=($!)
until_true "the registry" curl -sf "http://127.0.0.1:$port/v2/"

# Builds on a builder; prints the seconds and how many steps came from the cache.
build() { # builder, options...
  local builder=$1 from=$EPOCHREALTIME log=$work/build.log
  shift
  "$tools/buildx-$BUILDX_VERSION/buildx" build --builder "$builder" --progress plain --provenance=false "$@" \
    "$context" >"$log" 2>&1 </dev/null || { cat "$log" >&2; die "a build on $builder failed"; }
  local to=$EPOCHREALTIME
  awk -v seconds="$(awk -v a="$from" -v b="$to" 'BEGIN { print b - a }')" '
    match($0, /^#[0-9]+ \[[^]]+ [0-9]+\/[0-9]+\] /) { step[$1] = 1 }
    $2 == "CACHED" && ($1 in step) { hits[$1] = 1 }
    END { printf "%.2f %d %d\n", seconds, length(hits), length(step) }
  ' "$log"
}

runner writer
image=127.0.0.1:$port/demo
declare -A export_options import_options
kinds=(none inline registry local gha-compatible)
export_options[none]="--output=type=cacheonly"
import_options[none]=""
export_options[inline]="--cache-to=type=inline --output=type=image,name=$image:inline,push=true,registry.insecure=true"
import_options[inline]="--cache-from=type=registry,ref=$image:inline"
export_options[registry]="--cache-to=type=registry,ref=$image:cache,mode=max --output=type=cacheonly"
import_options[registry]="--cache-from=type=registry,ref=$image:cache"
export_options[local]="--cache-to=type=local,dest=$work/local,mode=max --output=type=cacheonly"
import_options[local]="--cache-from=type=local,src=$work/local"
export_options[gha-compatible]="--cache-to=type=gha-compatible,mode=max --output=type=cacheonly"
import_options[gha-compatible]="--cache-from=type=gha-compatible"

for kind in "${kinds[@]}"; do
  # Options are words on purpose.
  # shellcheck disable=SC2086
  build writer ${export_options[$kind]} >/dev/null
done
for round in 1 2 3; do
  for kind in "${kinds[@]}"; do
    runner "$kind-$round"
    for result in cacheonly local; do
      output=type=$result
      [ "$result" = local ] && output=type=local,dest=$work/out-$kind-$round
      [ "$kind" = none ] && [ "$result" = local ] && continue
      # The result is read out on a runner that is as cold as the first.
      [ "$result" = local ] && runner "$kind-$round-out"
      builder=$kind-$round$([ "$result" = local ] && echo -out || true)
      # shellcheck disable=SC2086
      echo "$kind $result $(build "$builder" ${import_options[$kind]} --output="$output")" | tee -a "$work/figures" >&2
    done
  done
done

awk '
  { n[$1, $2]++; seconds[$1, $2, n[$1, $2]] = $3; if ($2 == "cacheonly") hits[$1] = $4; steps = $5; if (!($1 in known)) { known[$1] = 1; order[++kinds] = $1 } }
  function median(kind, result,   i, j, t, v) {
    if (!n[kind, result]) return "-"
    for (i = 1; i <= n[kind, result]; i++) v[i] = seconds[kind, result, i]
    for (i = 1; i < n[kind, result]; i++) for (j = i + 1; j <= n[kind, result]; j++) if (v[j] < v[i]) { t = v[i]; v[i] = v[j]; v[j] = t }
    return v[int((n[kind, result] + 1) / 2)] " s"
  }
  END {
    print "| cache | steps from the cache | cold build, no output | cold build, result read out |"
    print "|---|---|---|---|"
    for (i = 1; i <= kinds; i++) printf "| `%s` | %d of %d | %s | %s |\n", order[i], hits[order[i]], steps, median(order[i], "cacheonly"), median(order[i], "local")
  }
' "$work/figures"
