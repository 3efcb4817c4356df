#!/usr/bin/env bash
# Installs what the demo, the tests and the benchmarks run: runc, busybox, a
# registry, an S3 and an Azure server, PostgreSQL, Prometheus, the client of
# actions/cache, act, BuildKit (current, old, and one that trusts the tests'
# signatures), buildx and the oracle.
# Everything built here is kept under
# ${LAYERD_TOOLS:-~/.cache/layerd/tools}/<name>-<version>/ and reused; what is
# there already costs nothing.
#
#   integration/tools/install.sh [demo|test|bench]    demo: the current BuildKit only
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=versions.env
source "$here/versions.env"
tools=${LAYERD_TOOLS:-$HOME/.cache/layerd/tools}
what=${1:-test}

say() { printf 'tools: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

case $what in
  demo | test | bench) ;;
  *) die "usage: integration/tools/install.sh [demo|test|bench]" ;;
esac

present() { # command
  case $1 in
    # Debian keeps the programs of each version in a folder of its own.
    initdb) compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null ;;
    # A busybox that needs libraries is none on an empty file system.
    busybox) command -v busybox >/dev/null && ! ldd "$(command -v busybox)" >/dev/null 2>&1 ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

debian() { # packages, each with the command that it brings: package=command
  local missing=() pair
  for pair in "$@"; do
    present "${pair#*=}" || missing+=("${pair%%=*}")
  done
  [ ${#missing[@]} -eq 0 ] && return
  present apt-get || die "this is no Debian: install ${missing[*]} by hand"
  [ "$(id -u)" = 0 ] || die "run as root, or install by hand: ${missing[*]}"
  say "installing ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  for pair in "$@"; do
    present "${pair#*=}" || die "${pair%%=*} is installed, but there is no ${pair#*=}"
  done
}

# Builds commands of one Go module at one version, verified by checksum, into
# $tools/<name>-<version>/; a half-made folder is never taken for a whole one.
go_module() { # name module version sum goflags packages...
  local name=$1 module=$2 version=$3 sum=$4 flags=$5 out json source got
  shift 5
  out="$tools/$name-$version"
  if [ -e "$out/.complete" ] && [ "$(cat "$out/.complete")" = "$sum $*" ]; then return; fi
  present go || die "go is missing: install Go 1.25 or newer from https://go.dev/dl"
  say "building $name $version (once; a few minutes)"
  json=$(cd "$scratch" && go mod download -json "$module@$version") || die "$module@$version can't be fetched: $json"
  got=$(sed -n 's/^[[:space:]]*"Sum": "\(.*\)",\{0,1\}$/\1/p' <<<"$json")
  source=$(sed -n 's/^[[:space:]]*"Dir": "\(.*\)",\{0,1\}$/\1/p' <<<"$json")
  [ "$got" = "$sum" ] || die "$module@$version has checksum $got, pinned is $sum"
  rm -rf "$out.partial"
  mkdir -p "$out.partial"
  # The module cache is read-only, and -mod=mod may want to touch go.mod.
  cp -r "$source" "$scratch/$name-$version"
  chmod -R u+w "$scratch/$name-$version"
  # shellcheck disable=SC2086 # no flags are no argument
  (cd "$scratch/$name-$version" && CGO_ENABLED=0 GOFLAGS= go build $flags -trimpath \
    -ldflags "-s -w -X $module/version.Version=$version" -o "$out.partial/" "$@")
  printf '%s %s' "$sum" "$*" >"$out.partial/.complete"
  rm -rf "$out"
  mv "$out.partial" "$out"
}

versitygw() {
  go_module versitygw github.com/versity/versitygw "$VERSITYGW_VERSION" "$VERSITYGW_SUM" "" ./cmd/versitygw
}

# BuildKit's daemon with another idea of whose signatures count: GitHub's can't
# be had by a test. All else is as released (harness/tools.rs looks for it).
trusting_buildkitd() {
  local out sources=$scratch/trusting policy
  out="$tools/trusting-buildkitd-$BUILDKIT_VERSION-$(sha256sum "$here/trusting/trusting.go" | cut -c1-16)"
  if [ -e "$out/buildkitd" ]; then return; fi
  say "building buildkitd $BUILDKIT_VERSION for signatures of tests (once)"
  mkdir -p "$sources" "$out.partial"
  cp -r "$(go_folder "github.com/moby/buildkit@$BUILDKIT_VERSION")" "$sources/buildkit"
  chmod -R u+w "$sources"
  policy=$(cd "$sources/buildkit" && GOFLAGS= go list -m -f '{{.Path}}@{{.Version}}' github.com/moby/policy-helpers)
  cp -r "$(go_folder "$policy")" "$sources/policy"
  chmod -R u+w "$sources"
  sed -i 's/^func (v \*Verifier) VerifyArtifact(/func (v *Verifier) verifiedBySigstore(/' "$sources/policy/verifier.go"
  cp "$here/trusting/trusting.go" "$sources/policy/"
  (cd "$sources/buildkit" && export CGO_ENABLED=0 GOFLAGS= &&
    go mod edit -replace "github.com/moby/policy-helpers=../policy" &&
    go build -trimpath -ldflags "-s -w -X github.com/moby/buildkit/version.Version=$BUILDKIT_VERSION" \
      -o "$out.partial/" ./cmd/buildkitd)
  rm -rf "$out"
  mv "$out.partial" "$out"
}

# Where a Go module is, verified by the checksums of whoever needs it.
go_folder() { # module@version
  local json
  json=$(cd "$scratch" && go mod download -json "$1") || die "$1 can't be fetched: $json"
  sed -n 's/^[[:space:]]*"Dir": "\(.*\)",\{0,1\}$/\1/p' <<<"$json"
}

# Our own program that links BuildKit, kept by the hash of its sources
# (harness/tools.rs looks for the same).
oracle() {
  local out
  out="$tools/oracle-$(cd "$here/../oracle" && printf '%s\n' *.go *.mod *.sum | LC_ALL=C sort | xargs cat | sha256sum | cut -c1-16)"
  if [ -e "$out/oracle" ]; then return; fi
  grep -q "github.com/moby/buildkit $BUILDKIT_VERSION\$" "$here/../oracle/go.mod" ||
    die "integration/oracle/go.mod must require buildkit $BUILDKIT_VERSION, as versions.env does"
  say "building the oracle (once for each version of it)"
  mkdir -p "$out.partial"
  (cd "$here/../oracle" && CGO_ENABLED=0 GOFLAGS= go build -trimpath -buildvcs=false -o "$out.partial/oracle" .)
  rm -rf "$out"
  mv "$out.partial" "$out"
}

# A program of Node, as its lock file pins it; scripts of packages are not run.
npm_program() { # name version folder package program start
  local name=$1 version=$2 from="$here/$3" package=$4 program=$5 start=$6 out="$tools/$1-$2" sources
  sources=$(cat "$from"/* | sha256sum)
  if [ -e "$out/.complete" ] && [ "$(cat "$out/.complete")" = "$sources" ]; then return; fi
  grep -q "\"$package\": \"$version\"" "$from/package.json" ||
    die "integration/tools/$3/package.json must require $package $version, as versions.env does"
  debian npm=npm
  say "installing $name $version (once)"
  rm -rf "$out.partial"
  mkdir -p "$out.partial"
  cp "$from"/* "$out.partial/"
  (cd "$out.partial" && npm ci --silent --ignore-scripts --no-audit --no-fund) || die "$name can't be installed"
  # shellcheck disable=SC2016 # for the shell that runs it
  printf '#!/bin/sh\nexec node "$(dirname "$0")/%s" "$@"\n' "$start" >"$out.partial/$program"
  chmod +x "$out.partial/$program"
  printf '%s' "$sources" >"$out.partial/.complete"
  rm -rf "$out"
  mv "$out.partial" "$out"
}

# An Azure server, and the client that actions/cache has.
azurite() {
  npm_program azurite "$AZURITE_VERSION" azurite azurite azurite-blob node_modules/azurite/dist/src/blob/main.js
}
actions_cache() {
  npm_program actions-cache "$ACTIONS_CACHE_VERSION" actions @actions/cache actions-cache run.mjs
}

mkdir -p "$tools"
exec 9>"$tools/.lock"
flock 9
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# What cargo links with is not there on every machine that has Rust.
debian runc=runc busybox-static=busybox gcc=cc git=git curl=curl ca-certificates=update-ca-certificates
go_module buildkit github.com/moby/buildkit "$BUILDKIT_VERSION" "$BUILDKIT_SUM" "" \
  ./cmd/buildkitd ./cmd/buildctl ./frontend/dockerfile/cmd/dockerfile-frontend
go_module buildx github.com/docker/buildx "$BUILDX_VERSION" "$BUILDX_SUM" "" ./cmd/buildx
if [ "$what" = test ]; then
  debian docker-registry=docker-registry openssl=openssl openssh-client=ssh-agent postgresql=initdb \
    prometheus=promtool faketime=faketime
  go_module buildkit github.com/moby/buildkit "$BUILDKIT_OLD_VERSION" "$BUILDKIT_OLD_SUM" "-mod=mod" \
    ./cmd/buildkitd
  trusting_buildkitd
  oracle
  go_module act github.com/nektos/act "$ACT_VERSION" "$ACT_SUM" "" .
  versitygw
  azurite
  actions_cache
fi
if [ "$what" = bench ]; then
  debian docker-registry=docker-registry
  versitygw
fi
