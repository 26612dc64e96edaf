-- {now, grace, limit} -> {id, dispatch, priority, payload, ...}
local now, grace, limit = input[1], input[2], input[3]
local clock, taken = store_clock(), {}
for _, id in ipairs(index_below('outbox', now, limit)) do
  local run_at = records[id][RUN_AT]
  if run_at and run_at > clock then -- a scanner keeps its ticket until then; the caller's clock is ahead
    to_outbox(id, records[id], run_at + grace)
  else
    taken[#taken + 1] = id
  end
end
if #taken < limit and redis.call('EXISTS', prefix .. 'paused') == 0 then
  local held = load_indexed('held', redis.call('ZRANGE', prefix .. 'held', 0, limit - #taken - 1))
  for _, id in ipairs(held) do
    drop('held', id)
    taken[#taken + 1] = id
  end
end
for _, id in ipairs(taken) do
  to_outbox(id, records[id], now + grace)
  changed[id] = true
end
local rows = ready(taken)
flush()
return rows
