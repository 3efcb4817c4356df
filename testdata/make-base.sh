#!/usr/bin/env bash
# Makes the root file system that every Dockerfile here starts from, so that all
# of them build without a network: a static busybox and a link per applet.
# The same busybox gives the same bytes, on every machine.
#
#   testdata/make-base.sh OUT.tar
set -euo pipefail

case ${1:-} in
  '' | -*) echo "usage: testdata/make-base.sh OUT.tar" >&2; exit 2 ;;
esac
busybox=$(command -v busybox) || { echo "busybox is missing: run integration/tools/install.sh" >&2; exit 1; }
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,etc,proc,root,sys,tmp}
install -m 755 "$busybox" "$root/bin/busybox"
"$busybox" --list | while read -r applet; do
  [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=gnu -C "$root" -cf "$1.partial" .
mv "$1.partial" "$1"
