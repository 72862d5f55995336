#!/usr/bin/env bash
# Runs one Postgres server for the tests of one run: server.sh BASE BIN
# It listens on a Unix socket in BASE only, and ends, removing BASE, once no test has held BASE/users for five seconds.
# Whoever starts or uses it first takes BASE/lock.
set -euo pipefail
base=$1 bin=$2
as=()
if [ "$(id -u)" = 0 ]; then
    # Postgres refuses to run as root.
    user=$(id -un postgres 2>/dev/null || echo nobody)
    mkdir -m 0700 "$base/server"
    chown "$user" "$base/server"
    chmod 0711 "$base"
    as=(runuser -u "$user" --)
else
    mkdir -m 0700 "$base/server"
fi
cd "$base/server"
"${as[@]}" "$bin/initdb" -D "$base/server/data" -U postgres -A trust -E UTF8 --no-locale --no-sync >"$base/initdb.log" 2>&1
"${as[@]}" "$bin/postgres" -D "$base/server/data" -k "$base/server" -c listen_addresses= -c fsync=off \
    -c synchronous_commit=off -c full_page_writes=off -c max_connections=300 -c shared_buffers=32MB \
    >"$base/server.log" 2>&1 &
child=$!
stop() {
    # Under runuser the server is the child's child; its own pid is the first line of its pid file.
    server=$(head -n 1 "$base/server/data/postmaster.pid" 2>/dev/null || echo "$child")
    kill -INT "$server" 2>/dev/null || true
    wait "$child" 2>/dev/null || true
    rm -rf "$base"
}
trap stop EXIT
for _ in $(seq 300); do
    "$bin/pg_isready" -q -h "$base/server" -U postgres && break
    kill -0 "$child"
    sleep 0.1
done
"$bin/pg_isready" -q -h "$base/server" -U postgres
touch "$base/ready"
idle=0
while kill -0 "$child" 2>/dev/null; do
    sleep 1
    exec 8>"$base/lock" 9>"$base/users"
    if flock -n 8 && flock -n 9; then
        idle=$((idle + 1))
        # Still under the lock: nobody comes in between.
        [ "$idle" -lt 5 ] || exit 0
    else
        idle=0
    fi
    exec 8>&- 9>&-
done
