# perl submit.pl QUEUE ID TASK ARGS [DELAY] [KEY]    with libanyevent-rabbitmq-perl of Debian
use strict; use warnings; use AnyEvent::RabbitMQ; use JSON::PP;
my ($queue, $id, $task, $args, $delay, $key) = @ARGV;
my ($user, $pass, $host, $port) = ($ENV{CALLBOARD_BROKER} // 'amqp://guest:guest@127.0.0.1:5672') =~ m{//(.*?):(.*?)\@([^:/]+):?(\d*)};
my $job = encode_json {id => $id, task => $task, args => decode_json($args), delay => ($delay // 0) + 0, deduplication => {id => $key // $id}};
my ($done, $failed) = (AnyEvent->condvar, sub { die "submit.pl: failed: ", ref $_[0] ? $_[0]->method_frame->reply_text : "@_", "\n" });
my $publish = sub {
    my $channel = shift;
    $channel->publish(exchange => ($ENV{CALLBOARD_NAMESPACE} // 'callboard') . '.submit', routing_key => $queue, body => $job, mandatory => 1,
        header => {content_type => 'application/json', delivery_mode => 2, reply_to => 'amq.rabbitmq.reply-to'});
};
my $consume = sub {
    my $channel = shift;
    $channel->consume(queue => 'amq.rabbitmq.reply-to', no_ack => 1, on_success => sub { $publish->($channel) }, on_failure => $failed,
        on_consume => sub { $done->send($_[0]->{body}->payload) });
};
my $connection = AnyEvent::RabbitMQ->new->load_xml_spec->connect(host => $host, port => $port || 5672, user => $user, pass => $pass, vhost => '/',
    timeout => 30, on_success => sub { $_[0]->open_channel(on_success => $consume, on_failure => $failed) }, on_failure => $failed, on_read_failure => $failed,
    on_return => $failed, on_close => sub { });
my $patience = AnyEvent->timer(after => 30, cb => sub { $failed->('no reply in 30 s; submit again with the same id') });
print $done->recv, "\n";
