#!/usr/bin/env bash
# events.sh QUEUE [COUNT]    prints what becomes of a queue's jobs, a line of JSON for each message; the user may read callboard.events
set -euo pipefail
url="${CALLBOARD_BROKER:-amqp://guest:guest@127.0.0.1:5672}"
exec amqp-consume --url="${url%/}" --exchange="${CALLBOARD_NAMESPACE:-callboard}.events" --routing-key="$1.*" --exclusive \
  ${2:+--count="$2"} -- sh -c 'cat; echo'
