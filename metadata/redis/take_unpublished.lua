-- {now, grace, limit} -> {id, dispatch, priority, payload, ...}
local now, grace, limit = input[1], input[2], input[3]
local taken = index_below('outbox', now, limit)
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
