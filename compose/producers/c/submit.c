/* cc -o submit submit.c -lrabbitmq; ./submit QUEUE ID TASK ARGS [DELAY] [KEY]    with librabbitmq-dev of Debian */
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NEED(good) if (!(good)) { fprintf(stderr, "submit: failed: %s\n", #good); exit(1); }

int main(int count, char **a) {
  NEED(count > 4);
  char url[512], exchange[128], job[65536];
  const char *given = getenv("CALLBOARD_BROKER"), *namespace = getenv("CALLBOARD_NAMESPACE");
  snprintf(url, sizeof url, "%s", given ? given : "amqp://guest:guest@127.0.0.1:5672");
  if (url[strlen(url) - 1] == '/') url[strlen(url) - 1] = 0;
  snprintf(exchange, sizeof exchange, "%s.submit", namespace ? namespace : "callboard");
  snprintf(job, sizeof job, "{\"id\": \"%s\", \"task\": \"%s\", \"args\": %s, \"delay\": %s, \"deduplication\": {\"id\": \"%s\"}}",
           a[2], a[3], a[4], count > 5 ? a[5] : "0", count > 6 ? a[6] : a[2]);

  struct amqp_connection_info at;
  NEED(amqp_parse_url(url, &at) == AMQP_STATUS_OK);
  amqp_connection_state_t connection = amqp_new_connection();
  NEED(amqp_socket_open(amqp_tcp_socket_new(connection), at.host, at.port) == AMQP_STATUS_OK);
  NEED(amqp_login(connection, at.vhost, 0, 131072, 30, AMQP_SASL_METHOD_PLAIN, at.user, at.password).reply_type == AMQP_RESPONSE_NORMAL);
  NEED(amqp_channel_open(connection, 1));
  NEED(amqp_basic_consume(connection, 1, amqp_cstring_bytes("amq.rabbitmq.reply-to"), amqp_empty_bytes, 0, 1, 0, amqp_empty_table));
  amqp_basic_properties_t properties = {0};
  properties._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_REPLY_TO_FLAG;
  properties.content_type = amqp_cstring_bytes("application/json");
  properties.delivery_mode = 2;
  properties.reply_to = amqp_cstring_bytes("amq.rabbitmq.reply-to");
  NEED(amqp_basic_publish(connection, 1, amqp_cstring_bytes(exchange), amqp_cstring_bytes(a[1]), 1, 0, &properties,
                          amqp_cstring_bytes(job)) == AMQP_STATUS_OK);

  struct timeval patience = {30, 0};
  amqp_envelope_t reply; /* comes after the job is stored: more than a confirm would say */
  NEED(amqp_consume_message(connection, &reply, &patience, 0).reply_type == AMQP_RESPONSE_NORMAL);
  printf("%.*s\n", (int)reply.message.body.len, (char *)reply.message.body.bytes);
  amqp_destroy_envelope(&reply);
  amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
  amqp_destroy_connection(connection);
  return 0;
}
