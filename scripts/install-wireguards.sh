#!/usr/bin/env bash
# Brings other userspace WireGuards, to measure beside ours and to test against: wireguard-go as Debian's sid has it now (the
# stable release's is years old and has no offload), gotatun and boringtun-cli. They go into a cache under the home directory,
# and nothing of the system is changed. What cannot be had is named, and is no failure: it is then left out.
set -euo pipefail

cache="${XDG_CACHE_HOME:-$HOME/.cache}/tieline"
peers="$cache/wireguards"
mkdir -p "$peers/bin"
exec 9>"$cache/wireguards.lock"
flock 9

say() { printf 'wireguards: %s\n' "$*" >&2; }

# The newest package, unpacked and not installed, with lists and cache of its own.
wireguard_go() {
  [ -x "$peers/bin/wireguard-go" ] && return
  command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1 || return 1
  local uri
  uri=$(grep -rhE '^(URIs:|deb ).*/debian/? *' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null |
    grep -oE 'https?://[^ ]*/debian/?' | head -1)
  [ -n "$uri" ] || return 1
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
  # apt gives up its privileges while it loads.
  chmod -R 777 "$work"
  local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  echo "deb [signed-by=$keyring] $uri sid main" >"$work/sources.list"
  local own=(-o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Get::List-Cleanup=0)
  # The keys of this release may be too old to know the one that signs sid.
  if ! apt-get -qq "${own[@]}" update >&2; then
    echo "deb [trusted=yes] $uri sid main" >"$work/sources.list"
    apt-get -qq "${own[@]}" update >&2
  fi
  (cd "$work" && apt-get -qq "${own[@]}" download wireguard-go/sid >&2 && dpkg-deb -x wireguard-go_*.deb unpacked)
  # What the program says of itself is not the package's version.
  (cd "$work" && echo wireguard-go_*.deb | cut -d_ -f2) >"$peers/wireguard-go.version"
  install -m 755 "$work/unpacked/usr/bin/wireguard-go" "$peers/bin/wireguard-go"
}

crate() { # crate version program
  [ -x "$peers/bin/$3" ] && [ "$(cat "$peers/$3.version" 2>/dev/null)" = "$2" ] && return
  command -v cargo >/dev/null 2>&1 || return 1
  say "building $1 $2 (once)"
  CARGO_TARGET_DIR="$cache/wireguards-target" nice cargo install --quiet --locked --root "$peers" "$1@$2" >&2 || return 1
  echo "$2" >"$peers/$3.version"
}

wireguard_go || say 'no wireguard-go from sid: left out'
crate boringtun-cli 0.7.1 boringtun-cli || say 'no boringtun-cli: left out'
crate gotatun-cli 0.10.2 gotatun || say 'no gotatun: left out'
rm -rf "$cache/wireguards-target"
for program in wireguard-go boringtun-cli gotatun; do
  [ -x "$peers/bin/$program" ] && say "$program $(cat "$peers/$program.version")"
done
exit 0
