#!/usr/bin/env bash
# Prints the path of a Python that has the packages of a requirements file. It is made once a user and version of the list,
# in the cache under the home directory.
set -euo pipefail

list=$1
cache="${XDG_CACHE_HOME:-$HOME/.cache}/tieline/python"
venv="$cache/$(sha256sum <"$list" | cut -c1-16)"
mkdir -p "$cache"
# One at a time, also when several tests start at once.
exec 9>"$cache/lock"
flock 9
if [ ! -e "$venv/ready" ]; then
  python3 -m venv --clear "$venv" >&2
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$list" >&2
  touch "$venv/ready"
fi
printf '%s\n' "$venv/bin/python"
