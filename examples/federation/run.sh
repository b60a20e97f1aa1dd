#!/bin/sh
# Six SuperNodes and a SuperLink on this machine, with TLS and node authentication: ./run.sh [FOLDER] [RUN CONFIG …]
# AGENT is what every site plays, PORT the SuperLink's port; SuperNodes take the ports after it. A SuperNode that ends is started again, and
# a run that fails is tried TRIES times in all (1). Run it again with the same folder, and the federation goes on where it was stopped.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "${1:-out}"
out=$(cd "${1:-out}" && pwd)
[ $# -gt 0 ] && shift
agent=${AGENT:-honest} port=${PORT:-9092} n=6 link="127.0.0.1:${PORT:-9092}"
export FLWR_HOME="$out/flower" FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

[ -f "$out/keys/server.crt" ] || "$here/certificates.sh" "$out/keys" $n
mkdir -p "$FLWR_HOME" "$out/logs"
cat > "$FLWR_HOME/config.toml" <<END
[superlink]
default = "cooperative"

[superlink.cooperative]
address = "$link"
root-certificates = "$out/keys/ca.crt"
END

python - "$port" "$n" <<'END'
import socket, sys
first, n = int(sys.argv[1]), int(sys.argv[2])
for port in range(first, first + n + 1):
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            sys.exit(f"port {port} is in use; {first} to {first + n} are needed: PORT=NUMBER ./run.sh takes others")
END

pids=""
alive() { for pid in $pids; do kill -0 "$pid" 2>/dev/null && return 0; done; return 1; }
stop() {
  for pid in $pids; do kill "$pid" 2>/dev/null || true; done
  i=0
  while [ "$i" -lt 20 ] && alive; do i=$((i + 1)); sleep 1; done  # a SuperLink waits for what runs
  for pid in $pids; do kill -9 "$pid" 2>/dev/null || true; done
  rm -f "$out/logs/pipe"
}
trap stop EXIT
trap 'echo "stopping; the same command goes on" >&2; exit 130' INT TERM
started_again() {
  trap 'kill "$child" 2>/dev/null; wait "$child"; exit' TERM
  while :; do
    "$@" &
    child=$!
    wait "$child" || sleep 1
  done
}

flower-superlink --host 127.0.0.1 --port "$port" --enable-supernode-auth --disable-runtime-dependency-installation \
  --ssl-ca-certfile "$out/keys/ca.crt" --ssl-certfile "$out/keys/server.crt" --ssl-keyfile "$out/keys/server.key" \
  > "$out/logs/superlink.log" 2>&1 &
pids="$pids $!"
link_pid=$!
echo "starting a SuperLink at $link and $n SuperNodes; logs are in $out/logs"
until flwr supernode list cooperative > /dev/null 2>&1; do
  kill -0 "$link_pid" 2>/dev/null || { echo "the SuperLink did not start: see $out/logs/superlink.log" >&2; exit 1; }
  sleep 1
done

i=0
while [ "$i" -lt "$n" ]; do
  flwr supernode register "$out/keys/member-$i.pub" cooperative > "$out/logs/register-$i.log" 2>&1
  started_again flower-supernode --superlink "$link" --root-certificates "$out/keys/ca.crt" --port $((port + 1 + i)) \
    --auth-supernode-private-key "$out/keys/member-$i" --node-config "partition-id=$i agent=\"$agent\"" \
    >> "$out/logs/supernode-$i.log" 2>&1 &
  pids="$pids $!"
  i=$((i + 1))
done

rm -f "$out/logs/pipe" && mkfifo "$out/logs/pipe"
rm -f "$out/model.pt"  # the ServerApp writes it when the episode is over
tries=${TRIES:-1}
until [ -f "$out/model.pt" ]; do
  [ "$tries" -gt 0 ] || { echo "the run failed: see $out/logs/superlink.log and $out/logs/supernode-*.log" >&2; exit 1; }
  tries=$((tries - 1))
  tee -a "$out/logs/run.log" < "$out/logs/pipe" &
  flwr run "$here" cooperative --run-config "out=\"$out\" $*" --stream > "$out/logs/pipe" 2>&1 &
  run_pid=$!
  pids="$run_pid $pids"
  wait "$run_pid" || true  # in the background, so that a signal ends this script at once
done
proxycoop ledger verify "$out/ledger.db"
i=0
while [ "$i" -lt "$n" ]; do
  proxycoop ledger statement "$out/ledger.db" "proxy_$i" --html "$out/statement-$i.html" --overwrite > "$out/statement-$i.txt"
  i=$((i + 1))
done
echo "statements: $out/statement-*.html"
