#!/usr/bin/env bash
# submit.sh QUEUE ID TASK ARGS [DELAY] [KEY]    with amqp-publish of Debian's amqp-tools: submit.sh emails a-1 emails.send '["a@b.c"]'
set -euo pipefail
queue="$1" id="$2" task="$3" args="$4" delay="${5:-0}" key="${6:-$id}"
url="${CALLBOARD_BROKER:-amqp://guest:guest@127.0.0.1:5672}"
amqp-publish --url="${url%/}" --persistent --content-type=application/json \
  --exchange="${CALLBOARD_NAMESPACE:-callboard}.submit" --routing-key="$queue" \
  --body="{\"id\": \"$id\", \"task\": \"$task\", \"args\": $args, \"delay\": $delay, \"deduplication\": {\"id\": \"$key\"}}"
