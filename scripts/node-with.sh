#!/usr/bin/env bash
# Prints the path of a folder with the npm packages of a lock file. It is made once a user and version of the list, in the
# cache under the home directory.
set -euo pipefail

list=$1
lock="$list/package-lock.json"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/tieline/node"
folder="$cache/$(cat "$list/package.json" "$lock" | sha256sum | cut -c1-16)"
mkdir -p "$cache"
# One at a time, also when several tests start at once.
exec 9>"$cache/lock"
flock 9
if [ ! -e "$folder/ready" ]; then
  rm -rf "$folder"
  mkdir "$folder"
  cp "$list/package.json" "$lock" "$folder/"
  (cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) >&2
  touch "$folder/ready"
fi
printf '%s\n' "$folder"
