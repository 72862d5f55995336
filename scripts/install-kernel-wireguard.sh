#!/usr/bin/env bash
# Makes a small machine with the kernel's WireGuard in it, for qemu to run: Debian's kernel for clouds, and an initramfs with
# busybox, `wg` and the modules. It goes into a cache under the home directory; of the system, only qemu and busybox are
# installed, where apt-get is there and may be used. Prints where it is; what stands in the way is said, and is a failure.
set -euo pipefail

cache="${XDG_CACHE_HOME:-$HOME/.cache}/tieline"
machine="$cache/wireguards/kernel"
mkdir -p "$machine"
exec 9>"$cache/wireguards.lock"
flock 9

fail() { printf 'kernel: %s\n' "$*" >&2; exit 1; }

packages=()
want() { command -v "$2" >/dev/null 2>&1 || packages+=("$1"); }
want qemu-system-x86 qemu-system-x86_64
want busybox-static busybox
want wireguard-tools wg
if [ "${#packages[@]}" -gt 0 ]; then
  sudo=()
  [ "$(id -u)" = 0 ] || sudo=(sudo -n)
  command -v apt-get >/dev/null 2>&1 && "${sudo[@]}" true 2>/dev/null || fail "missing: ${packages[*]}"
  "${sudo[@]}" apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -qq -y --no-install-recommends "${packages[@]}" >&2
fi
busybox --list | grep -qx cpio && ! ldd "$(command -v busybox)" >/dev/null 2>&1 || fail 'it needs a static busybox (busybox-static)'

if [ ! -s "$machine/vmlinuz" ]; then
  [ "$(uname -m)" = x86_64 ] || fail 'only for x86_64'
  command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1 || fail 'it needs apt-get and dpkg-deb'
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  chmod 777 "$work"
  package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends:/ { print $2; exit }')
  [ -n "$package" ] || fail 'apt knows no linux-image-cloud-amd64'
  (cd "$work" && apt-get -qq download "$package" >&2 && dpkg-deb -x linux-image-*.deb unpacked)
  mkdir -p "$machine/modules"
  for module in wireguard udp_tunnel ip6_udp_tunnel libchacha chacha-x86_64 poly1305-x86_64 libpoly1305 libchacha20poly1305 \
    libcurve25519 libcurve25519-generic curve25519-x86_64 virtio virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci \
    failover net_failover virtio_net; do
    find "$work/unpacked" -name "$module.ko*" -exec cp {} "$machine/modules/" \;
  done
  [ -n "$(find "$machine/modules" -name 'wireguard.ko*')" ] || fail "$package has no WireGuard"
  xz -dq "$machine"/modules/*.xz 2>/dev/null || true
  echo "${package#linux-image-}" >"$machine/version"
  cp "$work"/unpacked/boot/vmlinuz-* "$machine/vmlinuz"
fi

root=$(mktemp -d)
trap 'rm -rf "${work:-}" "$root"' EXIT
mkdir -p "$root"/{bin,proc,sys,dev,run,tmp,mod}
cp "$(command -v busybox)" "$root/bin/busybox"
# `wg`, and the libraries that it is linked with.
for file in $(command -v wg) $(ldd "$(command -v wg)" | grep -o '/[^ ]*'); do
  mkdir -p "$root$(dirname "$file")"
  cp -L "$file" "$root$file"
done
cp "$machine"/modules/* "$root/mod/"
# Lines that come by the second serial port are run, and each is answered by what it said and by its exit code.
cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
# Modules need each other: what does not load yet does so in a later round.
for round in 1 2 3 4 5; do for module in /mod/*; do insmod "$module" 2>/dev/null; done; done
ip link set lo up
stty -F /dev/ttyS1 raw -echo
exec </dev/ttyS1 >/dev/ttyS1 2>&1
echo READY
while read -r line; do
  sh -c "$line" </dev/null
  echo "DONE $?"
done
poweroff -f
INIT
chmod 755 "$root/init"
(cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$machine/initramfs.new"
mv "$machine/initramfs.new" "$machine/initramfs"
echo "$machine"
