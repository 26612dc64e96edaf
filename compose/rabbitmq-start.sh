#!/bin/sh
# Starts RabbitMQ with the cookie of this stack, and ends it in order when the container is stopped, in whichever image:
# the server of Debian's package would not see the signal.
#
# CLUSTER_BEGINS_AT: the node that makes the cluster which this one joins. Waited for before the first start alone, since
# two that begin at once may make a cluster each; later, whichever stopped last has to be let up first.
set -e
if [ "$(id -u)" = 0 ]; then
  install -m 400 -o rabbitmq -g rabbitmq /run/secrets/erlang-cookie /var/lib/rabbitmq/.erlang.cookie
fi
trap 'exit 0' TERM INT
if [ -n "$CLUSTER_BEGINS_AT" ] && [ ! -d "/var/lib/rabbitmq/mnesia/rabbit@$(hostname)" ]; then
  until rabbitmq-diagnostics --quiet --node "$CLUSTER_BEGINS_AT" check_running; do sleep 1; done
fi
docker-entrypoint.sh rabbitmq-server &
server=$!
trap 'rabbitmqctl --quiet stop || kill "$server"' TERM INT
wait "$server" || true # ends early when the signal comes
trap '' TERM INT
wait "$server" || true
