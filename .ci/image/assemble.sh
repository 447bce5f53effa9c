#!/bin/sh
# Puts together, in an empty folder, all that the image holds: `assemble.sh DEST`, in a tree that is built and has production packages only.
# Everything bears SOURCE_DATE_EPOCH, so that the same sources and packages give the same image.
set -eu
dest=$1
epoch=${SOURCE_DATE_EPOCH:-0}
[ ! -e "$dest" ] || { echo "assemble: $dest is there already" >&2; exit 1; }
mkdir -p "$dest/culvert" "$dest/usr/local/bin" "$dest/etc" "$dest/tmp" "$dest/run" "$dest/var/lib" "$dest/proc" "$dest/sys" "$dest/dev"
chmod 1777 "$dest/tmp"
ln -s ../run "$dest/var/run"

# Programs: what is run, without tests and maps.
cp -R --parents package.json node_modules dist control/installation/crds bpf/build native/build "$dest/culvert"
find "$dest/culvert" \( -name '*.map' -o -name '*.test.js' -o -name '.tsbuildinfo' -o -name '*.d.ts' -o -name '*.md' -o -name '*.asan.so' \) -type f -delete
rm -rf "$dest/culvert/node_modules/.bin" "$dest/culvert/node_modules/.package-lock.json" "$dest/culvert/dist/test"
rm -rf "$dest/culvert/node_modules/koffi/vendor" "$dest/culvert/node_modules/koffi/doc"
find "$dest/culvert/node_modules/koffi/src" -type f ! -name '*.js' ! -name '*.cjs' -delete
find "$dest/culvert/node_modules" -type d -name 'musl_*' -prune -exec rm -rf {} +

# Node, without its symbols for debuggers; those that our library binds to are dynamic ones and stay.
cp "$(command -v node)" "$dest/usr/local/bin/node"
strip --strip-unneeded "$dest/usr/local/bin/node" "$dest/culvert/native/build/culvert-native.so"

# Libraries that these load, with their licences.
mkdir -p "$dest/usr/share/doc"
binaries="$dest/usr/local/bin/node $dest/culvert/native/build/culvert-native.so $(find "$dest/culvert/node_modules" -name '*.node')"
for library in $(ldd $binaries | sed -n 's/^[[:space:]]*\([^ ]* => \)\{0,1\}\(\/[^ ]*\) (0x.*/\2/p' | sort -u); do
  mkdir -p "$dest$(dirname "$library")"
  cp -L "$library" "$dest$library"
  package=$(dpkg -S "$(realpath "$library")" 2>/dev/null || dpkg -S "$(realpath "$library" | sed 's|^/usr||')")
  package=${package%%:*}
  echo "$package" >>"$dest/../packages"
  mkdir -p "$dest/usr/share/doc/$package"
  cp -L "/usr/share/doc/$package/copyright" "$dest/usr/share/doc/$package/"
done

printf 'root:x:0:0:root:/:/sbin/nologin\nculvert:x:65532:65532:culvert:/:/sbin/nologin\n' >"$dest/etc/passwd"
printf 'root:x:0:\nculvert:x:65532:\n' >"$dest/etc/group"
printf 'hosts: files dns\n' >"$dest/etc/nsswitch.conf"

# What is in it, for scanners: CycloneDX.
sort -u "$dest/../packages" | xargs dpkg-query -W -f '${Package} ${Version} ${Architecture}\n' >"$dest/../versions"
mkdir -p "$dest/usr/share/culvert"
node "$(dirname "$0")/sbom.mjs" package-lock.json "$dest/../versions" >"$dest/usr/share/culvert/sbom.cdx.json"
rm "$dest/../packages" "$dest/../versions"

find "$dest" -exec touch -h -d "@$epoch" {} +
du -sm "$dest" | awk '{ print "assemble: " $1 " MB" }' >&2
