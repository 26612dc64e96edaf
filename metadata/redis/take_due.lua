-- {now, grace, limit, ahead} -> {next run_at or '', store clock}, {id, dispatch, priority, payload, ...}, {run_at or 0 of
-- what is due already, ...}
local now, grace, limit, ahead = input[1], input[2], input[3], input[4]
local clock = store_clock()
local due_by = math.min(now, clock)
local taken, not_before = index_below('delayed', due_by + ahead, limit), {}
for i, id in ipairs(taken) do
  local record = records[id]
  not_before[i] = record[RUN_AT] > due_by and record[RUN_AT] or 0
  leave(id, record)
  record[DISPATCH] = record[DISPATCH] + 1
  to_waiting(id, record, now, now + ahead + grace)
end
local rows = ready(taken)
flush()
local first = redis.call('ZRANGE', prefix .. 'delayed', 0, 0, 'WITHSCORES')
return {{first[2] or '', clock}, rows, not_before}
