#!/usr/bin/env bash
# The story of CI runners that never see each other's layers, told by stock
# buildkitd and stock buildx: a build with 20 s of slow steps on runner one, then
# the same build on runner two, which is cold. Prints who ran each step, who got
# it from the cache, the seconds of both, and the factor.
#
#   integration/demo.sh        needs root, Rust, Go and Python; installs the rest
set -euo pipefail

name=demo
source "$(dirname "${BASH_SOURCE[0]}")/runners.sh"
"$here/tools/install.sh" demo
build_layerd

seconds() { # builder, cache option: builds, prints how long it took
  local builder=$1 cache=$2 from=$EPOCHREALTIME
  say ""
  say "\$ docker buildx build --builder $builder $cache ."
  "$tools/buildx-$BUILDX_VERSION/buildx" build --builder "$builder" --progress rawjson "$cache" \
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

python3 - "$first" "$second" "$work/runner-one.log" "$work/runner-two.log" <<'PY'
import datetime, json, re, sys

def time(text):
    return datetime.datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", text).replace("Z", "+00:00"))

def fates(log):
    """What became of each step, by name."""
    found = {}
    for line in open(log):
        if not line.startswith("{"):
            continue
        for vertex in json.loads(line).get("vertexes") or []:
            name = vertex["name"]
            if not re.match(r"\[.+ \d+/\d+\] ", name):
                continue
            if vertex.get("error"):
                # It could not be loaded, and runs now.
                found.pop(name, None)
            elif vertex.get("cached"):
                found[name] = "from cache"
            elif vertex.get("completed") and found.get(name) != "from cache":
                # A cached step is done once more when its layers are pulled.
                took = time(vertex["completed"]) - time(vertex["started"])
                found[name] = f"ran {took.total_seconds():.1f}s"
    return found

first, second = map(float, sys.argv[1:3])
one, two = map(fates, sys.argv[3:5])
row = "{:62} {:12} {}".format
print("\n" + row("step", "runner one", "runner two"))
for step in one:
    shown = step if len(step) <= 60 else step[:57] + "..."
    print(row(shown, one[step], two.get(step, "")))
print(row("whole build", f"{first} s", f"{second} s"))
hits = sum(fate == "from cache" for fate in two.values())
print(f"\nRunner two ran {len(one) - hits} of {len(one)} steps, got {hits} from what runner one left, "
      f"and was {first / second:.0f} times as fast.")
PY
cmp "$work/out-runner-one/sum" "$work/out-runner-two/sum" || die "the two results differ"
echo "Both results are the same, byte for byte."
