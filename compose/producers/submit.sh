#!/usr/bin/env bash
# submit.sh QUEUE ID TASK ARGS [DELAY] [KEY]    with Debian's amqp-tools: submit.sh emails a-1 emails.send '["a@b.c"]'
# Prints the reply, for which the user has to configure and read ^amq\.gen- (PROTOCOL.md). NO_REPLY=1: no reply, no rights.
set -euo pipefail
queue="$1" id="$2" task="$3" args="$4" delay="${5:-0}" key="${6:-$id}"
url="${CALLBOARD_BROKER:-amqp://guest:guest@127.0.0.1:5672}"
job="{\"id\": \"$id\", \"task\": \"$task\", \"args\": $args, \"delay\": $delay, \"deduplication\": {\"id\": \"$key\"}}"
if [ -z "${NO_REPLY:-}" ]; then
  exec 3< <(exec timeout 30 amqp-consume --url="${url%/}" --exclusive --count=1 cat 2>&1)
  read -r reply_to <&3 && [[ $reply_to == *amq.gen-* ]] || { echo "submit.sh: no queue for the reply: $reply_to" >&2; exit 1; }
fi
amqp-publish --url="${url%/}" --persistent --content-type=application/json --exchange="${CALLBOARD_NAMESPACE:-callboard}.submit" \
  --routing-key="$queue" ${reply_to:+--reply-to="${reply_to##* }"} --body="$job"
if [ -z "${NO_REPLY:-}" ]; then grep . <&3; fi # comes once the job is stored; nothing in 30 s: submit again with the same id
