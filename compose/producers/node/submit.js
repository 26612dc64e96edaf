// node submit.js QUEUE ID TASK ARGS [DELAY] [KEY]    one job, with amqplib from npm: node submit.js emails a-1 emails.send '["a@b.c"]'
const [queue, id, task, args, delay = '0', key = id] = process.argv.slice(2)
const { CALLBOARD_BROKER = 'amqp://guest:guest@127.0.0.1:5672', CALLBOARD_NAMESPACE = 'callboard', TRACEPARENT } = process.env
require('amqplib').connect(CALLBOARD_BROKER).then(async (connection) => {
  const channel = await connection.createChannel()
  const replied = new Promise((resolve) => channel.consume('amq.rabbitmq.reply-to', resolve, { noAck: true }))
  setTimeout(() => { throw new Error('no reply in 30 s; submit again with the same id') }, 30000).unref()
  const job = { id, task, args: JSON.parse(args), delay: Number(delay), deduplication: { id: key } }
  channel.publish(`${CALLBOARD_NAMESPACE}.submit`, queue, Buffer.from(JSON.stringify(job)), { contentType: 'application/json',
    persistent: true, mandatory: true, replyTo: 'amq.rabbitmq.reply-to', headers: { traceparent: TRACEPARENT } })
  console.log((await replied).content.toString()) // comes once the job is stored
  await connection.close()
})
