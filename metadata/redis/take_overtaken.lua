-- {now, grace, lag, sent_before or nil, limit} -> {id, dispatch, priority, payload, ...}
local now, grace, lag, sent_before, limit = input[1], input[2], input[3], input[4] or 0, input[5]
local taken = {}
local marks = redis.call('HGETALL', prefix .. 'marks')
for i = 1, #marks, 2 do
  local index = 'sent:' .. marks[i]
  local before = math.max(math.min(tonumber(marks[i + 1]), now) - lag, sent_before)
  if before > 0 and #taken < limit then
    for _, id in ipairs(index_below(index, string.format('(%.0f', before), limit - #taken)) do
      drop(index, id)
      to_outbox(id, records[id], now + grace)
      changed[id] = true
      taken[#taken + 1] = id
    end
  end
end
local rows = ready(taken)
flush()
return rows
