-- {now, grace, limit} -> {next run_at or '', store clock}, {id, dispatch, priority, payload, ...}
local now, grace, limit = input[1], input[2], input[3]
local clock = store_clock()
local taken = index_below('delayed', math.min(now, clock), limit)
for _, id in ipairs(taken) do
  local record = records[id]
  leave(id, record)
  record[DISPATCH] = record[DISPATCH] + 1
  to_waiting(id, record, now, now + grace)
end
local rows = ready(taken)
flush()
local first = redis.call('ZRANGE', prefix .. 'delayed', 0, 0, 'WITHSCORES')
return {{first[2] or '', clock}, rows}
