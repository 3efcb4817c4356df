#!/usr/bin/env bash
# Installs what the demo and the tests run: runc, busybox, a registry, BuildKit
# (current and old) and buildx. Everything built here is kept under
# ${LAYERD_TOOLS:-~/.cache/layerd/tools}/<name>-<version>/ and reused; what is
# there already costs nothing.
#
#   integration/tools/install.sh [demo|test]    demo: the current BuildKit only
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=versions.env
source "$here/versions.env"
tools=${LAYERD_TOOLS:-$HOME/.cache/layerd/tools}
what=${1:-test}
mkdir -p "$tools"

say() { printf 'tools: %s\n' "$*" >&2; }

need() { # command, hint
  command -v "$1" >/dev/null 2>&1 || { say "$1 is missing: $2"; exit 1; }
}

debian() { # packages, each named by the command that it brings: package=command
  local missing=() pair
  for pair in "$@"; do
    command -v "${pair#*=}" >/dev/null 2>&1 || missing+=("${pair%%=*}")
  done
  [ ${#missing[@]} -eq 0 ] && return
  need apt-get "install ${missing[*]} by hand"
  [ "$(id -u)" = 0 ] || { say "run as root, or install ${missing[*]} by hand"; exit 1; }
  say "installing ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# Builds commands of one Go module at one version, verified by checksum, into
# $tools/<name>-<version>/; a half-made folder is never taken for a whole one.
go_module() { # name module version sum goflags packages...
  local name=$1 module=$2 version=$3 sum=$4 flags=$5 out source got
  shift 5
  out="$tools/$name-$version"
  if [ -e "$out/.complete" ] && [ "$(cat "$out/.complete")" = "$sum $*" ]; then return; fi
  need go "install Go 1.25 or newer"
  say "building $name $version (once; a few minutes)"
  local json
  json=$(go mod download -json "$module@$version")
  got=$(sed -n 's/^[[:space:]]*"Sum": "\(.*\)",\{0,1\}$/\1/p' <<<"$json")
  source=$(sed -n 's/^[[:space:]]*"Dir": "\(.*\)",\{0,1\}$/\1/p' <<<"$json")
  [ "$got" = "$sum" ] || { say "$module@$version has checksum $got, pinned is $sum"; exit 1; }
  rm -rf "$out.partial"
  mkdir -p "$out.partial"
  # The module cache is read-only, and -mod=mod may want to touch go.mod.
  local work
  work=$(mktemp -d)
  cp -r "$source/." "$work/"
  chmod -R u+w "$work"
  (cd "$work" && CGO_ENABLED=0 go build $flags -trimpath -ldflags "-s -w -X $module/version.Version=$version" -o "$out.partial/" "$@")
  rm -rf "$work"
  printf '%s %s' "$sum" "$*" >"$out.partial/.complete"
  rm -rf "$out"
  mv "$out.partial" "$out"
}

exec 9>"$tools/.lock"
flock 9

debian runc=runc busybox-static=busybox
go_module buildkit github.com/moby/buildkit "$BUILDKIT_VERSION" "$BUILDKIT_SUM" "" \
  ./cmd/buildkitd ./cmd/buildctl ./frontend/dockerfile/cmd/dockerfile-frontend
go_module buildx github.com/docker/buildx "$BUILDX_VERSION" "$BUILDX_SUM" "" ./cmd/buildx
if [ "$what" = test ]; then
  debian docker-registry=docker-registry openssl=openssl openssh-client=ssh-agent
  go_module buildkit github.com/moby/buildkit "$BUILDKIT_OLD_VERSION" "$BUILDKIT_OLD_SUM" "-mod=mod" \
    ./cmd/buildkitd
fi
