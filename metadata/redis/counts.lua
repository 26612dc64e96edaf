-- {} -> {waiting, delayed, children, completed, failed, cancelled, expired, outbox, held, paused, active}
local answer = {}
for i, index in ipairs({
  'waiting', 'delayed', 'children', 'final:completed', 'final:failed', 'final:cancelled', 'final:expired', 'outbox',
  'held',
}) do
  answer[i] = redis.call('ZCARD', prefix .. index)
end
answer[10] = redis.call('EXISTS', prefix .. 'paused')
-- Whoever holds a job has a row.
local active = 0
for _, boot in ipairs(redis.call('HKEYS', prefix .. 'beats')) do
  active = active + redis.call('ZCARD', prefix .. 'active:' .. boot)
end
answer[11] = active
return answer
