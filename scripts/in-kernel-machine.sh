#!/usr/bin/env bash
# Runs a program in the machine that `install-kernel-machine.sh` makes, as root and with nothing else on it:
#
#   in-kernel-machine.sh [-e NAME=VALUE]... [-f FILE]... PROGRAM [ARGUMENT]...
#
# Each FILE and the program go along, without symbols and with the libraries that they are linked with; they are found by
# their names on PATH. Prints what the program prints, and ends with its exit code; 124 after MACHINE_SECONDS (600).
set -euo pipefail

environment=() files=()
while getopts e:f: option; do
  case $option in
    e) environment+=("$OPTARG") ;;
    f) files+=("$OPTARG") ;;
    *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || { sed -n '2,/^$/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
machine=$("$(dirname "${BASH_SOURCE[0]}")/install-kernel-machine.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

root="$work/root"
mkdir -p "$root/bin"
for file in "$1" "${files[@]}"; do
  program=$(readlink -f "$(command -v "$file" || echo "$file")")
  strip -o "$root/bin/$(basename "$file")" "$program" 2>/dev/null || cp "$program" "$root/bin/$(basename "$file")"
  chmod 755 "$root/bin/$(basename "$file")"
  for library in $(ldd "$program" 2>/dev/null | grep -o '/[^ ]*'); do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
  done
done
{
  echo '#!/bin/busybox sh'
  echo 'cd /tmp'
  for pair in "${environment[@]}"; do printf 'export %q\n' "$pair"; done
  printf 'exec %q' "/bin/$(basename "$1")"
  shift
  [ $# -eq 0 ] || printf ' %q' "$@"
  echo
} >"$root/job"
chmod 755 "$root/job"
# A kernel takes archives one after the other.
cat "$machine/initramfs" >"$work/initramfs"
(cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >>"$work/initramfs"

code=0
timeout "${MACHINE_SECONDS:-600}" qemu-system-x86_64 -M q35 -accel tcg -cpu max -smp 2 -m 2048 -no-reboot -nodefaults \
  -display none -kernel "$machine/vmlinuz" -initrd "$work/initramfs" -append 'console=ttyS0 quiet panic=-1' \
  -serial "file:$work/console" -serial stdio </dev/null 2>"$work/qemu" | tee "$work/said" | sed -u '/^READY\r\?$/d; /^DONE [0-9]*\r\?$/d' || code=$?
[ "$code" != 124 ] || { echo 'the machine did not come to its end in time' >&2; exit 124; }
done=$(sed -n 's/^DONE \([0-9]*\)\r\?$/\1/p' "$work/said" | tail -1)
[ -n "$done" ] || { cat "$work/qemu" "$work/console" >&2; echo 'the machine ended by itself' >&2; exit 1; }
exit "$done"
