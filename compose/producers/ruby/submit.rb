# ruby submit.rb QUEUE ID TASK ARGS [DELAY] [KEY]    with ruby-bunny of Debian
require 'bunny'
require 'json'
queue, id, task, args, delay, key = ARGV
connection = Bunny.new((ENV['CALLBOARD_BROKER'] || 'amqp://guest:guest@127.0.0.1:5672').chomp('/')).start
channel = connection.create_channel
replies = Queue.new
channel.basic_consume('amq.rabbitmq.reply-to', '', true) { |_delivery, _properties, body| replies << body }
job = { id: id, task: task, args: JSON.parse(args), delay: delay.to_f, deduplication: { id: key || id } }
channel.confirm_select
channel.basic_publish(JSON.generate(job), "#{ENV['CALLBOARD_NAMESPACE'] || 'callboard'}.submit", queue,
                      content_type: 'application/json', persistent: true, mandatory: true, reply_to: 'amq.rabbitmq.reply-to')
channel.wait_for_confirms
puts Timeout.timeout(30) { replies.pop } # comes once the job is stored; without it, submit again with the same id
connection.close
