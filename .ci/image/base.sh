#!/usr/bin/env bash
# The build image where no registry is reached: Debian 12 by mmdebstrap, Node 24 and npm from npm's registry. `base.sh [NAME]`, as root, needs buildah and
# mmdebstrap (Debian packages).
set -Eeuo pipefail
name=${1:-localhost/culvert-build}
node=24.21.0
npm=11.6.2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
case $(uname -m) in x86_64) arch=x64 ;; aarch64) arch=arm64 ;; *) echo "base: no Node for $(uname -m)" >&2; exit 1 ;; esac
packages=clang,gcc,make,libc6-dev,linux-libc-dev,libbpf-dev,libelf-dev,zlib1g-dev,libssl-dev,binutils,ca-certificates
mmdebstrap --variant=apt --include="$packages" bookworm "$work/root.tar" http://deb.debian.org/debian
npm install --prefix "$work/npm" --ignore-scripts --no-audit --no-fund "node-linux-$arch@$node" "npm@$npm" >/dev/null
container=$(buildah from scratch)
buildah add -q "$container" "$work/root.tar" / >/dev/null
buildah copy -q "$container" "$work/npm/node_modules/node-linux-$arch/bin/node" /usr/local/bin/node >/dev/null
buildah copy -q "$container" "$work/npm/node_modules/npm" /usr/local/lib/node_modules/npm >/dev/null
root=$(buildah mount "$container")
ln -s ../lib/node_modules/npm/bin/npm-cli.js "$root/usr/local/bin/npm"
ln -s ../lib/node_modules/npm/bin/npx-cli.js "$root/usr/local/bin/npx"
buildah umount "$container" >/dev/null
buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --cmd /bin/sh "$container"
buildah commit -q --rm "$container" "$name" >/dev/null
echo "base: $name"
