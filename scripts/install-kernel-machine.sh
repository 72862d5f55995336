#!/usr/bin/env bash
# Makes a small machine for qemu to run, with what a kernel may lack: WireGuard, MACsec and VLANs. It is Debian's kernel for
# clouds, and an initramfs with busybox, `ip`, `nft`, `wg` and the modules. It goes into a cache under the home directory; of
# the system, only these tools and qemu are installed, where apt-get is there and may be used. Prints where it is; what
# stands in the way is said, and is a failure.
set -euo pipefail

cache="${XDG_CACHE_HOME:-$HOME/.cache}/tieline"
machine="$cache/machine"
mkdir -p "$machine"
exec 9>"$cache/machine.lock"
flock 9

fail() { printf 'kernel: %s\n' "$*" >&2; exit 1; }

packages=()
want() { PATH="$PATH:/usr/sbin:/sbin" command -v "$2" >/dev/null 2>&1 || packages+=("$1"); }
want qemu-system-x86 qemu-system-x86_64
want busybox-static busybox
want wireguard-tools wg
want iproute2 ip
want nftables nft
want kmod depmod
if [ "${#packages[@]}" -gt 0 ]; then
  sudo=()
  [ "$(id -u)" = 0 ] || sudo=(sudo -n)
  command -v apt-get >/dev/null 2>&1 && "${sudo[@]}" true 2>/dev/null || fail "missing: ${packages[*]}"
  "${sudo[@]}" apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -qq -y --no-remove --no-install-recommends "${packages[@]}" >&2 ||
    fail "install these first: ${packages[*]}"
fi
export PATH="$PATH:/usr/sbin:/sbin"
busybox --list | grep -x cpio >/dev/null && ! ldd "$(command -v busybox)" >/dev/null 2>&1 || fail 'it needs a static busybox (busybox-static)'

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ ! -s "$machine/vmlinuz" ]; then
  [ "$(uname -m)" = x86_64 ] || fail 'only for x86_64'
  command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1 || fail 'it needs apt-get and dpkg-deb'
  chmod 777 "$work"
  package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends:/ { print $2; exit }')
  [ -n "$package" ] || fail 'apt knows no linux-image-cloud-amd64'
  (cd "$work" && apt-get -qq download "$package" >&2 && dpkg-deb -x linux-image-*.deb unpacked)
  from=$(echo "$work"/unpacked/lib/modules/*/)
  to="$machine/modules/lib/modules/$(basename "$from")"
  rm -rf "$machine/modules"
  mkdir -p "$to"
  for part in net crypto lib arch/x86/crypto drivers/virtio drivers/net; do
    mkdir -p "$to/kernel/$part"
    cp -r "$from/kernel/$part/." "$to/kernel/$part"
  done
  rm -rf "$to"/kernel/drivers/net/{ethernet,hyperv,fjes,vmxnet3,phy,ppp} "$to"/kernel/net/{ceph,sunrpc,openvswitch,sctp,tipc,rds,smc,dccp}
  find "$to" -name '*.ko.xz' -exec xz -dq {} +
  cp "$from"/modules.{order,builtin} "$from/modules.builtin.modinfo" "$to"
  depmod -b "$machine/modules" "$(basename "$from")"
  for module in wireguard macsec 8021q nf_tables tun veth; do
    [ -n "$(find "$to" -name "$module.ko")" ] || fail "$package has no $module"
  done
  echo "${package#linux-image-}" >"$machine/version"
  cp "$work"/unpacked/boot/vmlinuz-* "$machine/vmlinuz"
fi

root="$work/root"
mkdir -p "$root"/{bin,etc,proc,sys,dev,run,tmp,root}
cp "$(command -v busybox)" "$root/bin/busybox"
# Each tool, and the libraries that it is linked with.
for tool in wg ip nft; do
  program=$(readlink -f "$(command -v "$tool")")
  cp "$program" "$root/bin/$tool"
  for file in $(ldd "$program" | grep -o '/[^ ]*'); do
    mkdir -p "$root$(dirname "$file")"
    cp -L "$file" "$root$file"
  done
done
cp -r "$machine/modules/." "$root/"
printf '%s\n' root:x:0:0::/root:/bin/sh daemon:x:1:1::/:/bin/false >"$root/etc/passwd"
printf '%s\n' root:x:0: daemon:x:1: >"$root/etc/group"
# A job that came with it is run, and its exit code said. Else lines that come by the second serial port are run, and each is
# answered by what it said and by its exit code.
cat >"$root/init" <<'INIT'
#!/bin/busybox sh
export PATH=/bin:/sbin:/usr/bin HOME=/root
/bin/busybox mkdir -p /sbin
/bin/busybox --install -s /sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mkdir -p /run/netns /dev/net
for module in virtio_pci virtio_net wireguard tun; do modprobe "$module"; done
ip link set lo up
stty -F /dev/ttyS1 raw -echo
exec </dev/ttyS1 >/dev/ttyS1 2>&1
echo READY
if [ -x /job ]; then
  /job </dev/null
  echo "DONE $?"
else
  while read -r line; do
    sh -c "$line" </dev/null
    echo "DONE $?"
  done
fi
poweroff -f
INIT
chmod 755 "$root/init"
(cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$machine/initramfs.new"
mv "$machine/initramfs.new" "$machine/initramfs"
echo "$machine"
