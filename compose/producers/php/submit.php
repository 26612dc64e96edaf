<?php // php submit.php QUEUE ID TASK ARGS [DELAY] [KEY]    with php-amqplib of Debian
require 'PhpAmqpLib/autoload.php';
[, $queue, $id, $task, $args] = $argv;
$at = parse_url(getenv('CALLBOARD_BROKER') ?: 'amqp://guest:guest@127.0.0.1:5672');
$connection = new PhpAmqpLib\Connection\AMQPStreamConnection($at['host'], $at['port'] ?? 5672, $at['user'], $at['pass']);
$channel = $connection->channel();
$channel->basic_consume('amq.rabbitmq.reply-to', '', false, true, false, false, fn ($reply) => print($reply->body . "\n"));
$job = ['id' => $id, 'task' => $task, 'args' => json_decode($args), 'delay' => (float) ($argv[5] ?? 0), 'deduplication' => ['id' => $argv[6] ?? $id]];
$properties = ['content_type' => 'application/json', 'delivery_mode' => 2, 'reply_to' => 'amq.rabbitmq.reply-to'];
$channel->confirm_select();
$channel->basic_publish(new PhpAmqpLib\Message\AMQPMessage(json_encode($job), $properties), (getenv('CALLBOARD_NAMESPACE') ?: 'callboard') . '.submit', $queue, true);
$channel->wait_for_pending_acks_returns(30);
$channel->wait(null, false, 30);
$connection->close();
