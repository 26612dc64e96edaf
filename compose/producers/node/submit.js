// node submit.js QUEUE ID TASK ARGS    one job, with amqplib from npm: node submit.js emails a-1 emails.send '["a@b.c"]'
const amqplib = require('amqplib')
const [queue, id, task, args] = process.argv.slice(2)
;(async () => {
  const connection = await amqplib.connect(process.env.CALLBOARD_BROKER || 'amqp://guest:guest@127.0.0.1:5672')
  const channel = await connection.createConfirmChannel()
  channel.publish(`${process.env.CALLBOARD_NAMESPACE || 'callboard'}.submit`, queue,
    Buffer.from(JSON.stringify({ id, task, args: JSON.parse(args) })),
    { contentType: 'application/json', persistent: true, mandatory: true })
  await channel.waitForConfirms()
  await connection.close()
})()
