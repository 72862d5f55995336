#!/usr/bin/env bash
# Brings what building, testing and the lab need: Debian packages where apt-get is there and may be used, and cargo tools,
# which are built once into a cache under the home directory. It does nothing where everything is there already.
set -euo pipefail

cache="${XDG_CACHE_HOME:-$HOME/.cache}/tieline"
tools="$cache/tools"

say() { printf 'tools: %s\n' "$*" >&2; }

# package:program that shows it is there
packages=()
want() { command -v "$2" >/dev/null 2>&1 || [ -x "/usr/sbin/$2" ] || packages+=("$1"); }
want gcc gcc
want iproute2 ip
want bird2 bird
want nftables nft
if [ "${1:-}" = bench ]; then
  want iperf3 iperf3
  want wireguard-tools wg
fi
if [ "${1:-}" = test ]; then
  want python3-venv python3
  want wireguard-tools wg
  want wireguard-go wireguard-go
  want nodejs node
  want npm npm
  compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || packages+=(postgresql)
fi
if [ "${1:-}" = fuzz ]; then want g++ g++; fi
if [ "${#packages[@]}" -gt 0 ]; then
  sudo=()
  [ "$(id -u)" = 0 ] || sudo=(sudo -n)
  if command -v apt-get >/dev/null 2>&1 && "${sudo[@]}" true 2>/dev/null; then
    say "installing ${packages[*]}"
    "${sudo[@]}" apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -qq -y --no-install-recommends "${packages[@]}" >&2
  else
    say "missing: ${packages[*]}; install them with your system's package manager, and run this again"
    exit 1
  fi
fi

command -v cargo >/dev/null 2>&1 || { say "missing: cargo; install Rust 1.95 or later (https://rustup.rs), and run this again"; exit 1; }

if [ "${1:-}" = test ] || [ "${1:-}" = fuzz ]; then
  mkdir -p "$tools"
  # One build at a time, also when several checkouts start at once.
  exec 9>"$cache/tools.lock"
  flock 9
  tool() { # program version
    if "$tools/bin/$1" --version 2>/dev/null | grep -qF "$2"; then return; fi
    say "building $1 $2 (once)"
    CARGO_TARGET_DIR="$cache/tools-target" cargo install --quiet --locked --root "$tools" "$1@$2" >&2
  }
  if [ "$1" = fuzz ]; then
    tool cargo-fuzz 0.13.2
  else
    command -v cargo-nextest >/dev/null 2>&1 || tool cargo-nextest 0.9.151
    tool cargo-deny 0.20.2
    tool cargo-machete 0.9.2
  fi
  rm -rf "$cache/tools-target"
fi
