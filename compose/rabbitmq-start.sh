#!/bin/sh
# Starts RabbitMQ with the cookie of this stack, and ends it in order when the container is stopped, in whichever image:
# the server of Debian's package would not see the signal.
set -e
if [ "$(id -u)" = 0 ]; then
  install -m 400 -o rabbitmq -g rabbitmq /run/secrets/erlang-cookie /var/lib/rabbitmq/.erlang.cookie
fi
docker-entrypoint.sh rabbitmq-server &
server=$!
trap 'rabbitmqctl --quiet stop || kill "$server"' TERM INT
wait "$server" || true # ends early when the signal comes
trap '' TERM INT
wait "$server" || true
