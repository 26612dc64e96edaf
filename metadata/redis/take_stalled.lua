-- {boot, now, grace, max_stalled, error, history, keep, limit} -> more, {failed id, ...}, {id, dispatch, priority,
-- payload, ...}
local boot, now, grace, max_stalled = input[1], input[2], input[3], input[4]
local failure, history, keep, limit = input[5], input[6], input[7], input[8]
if not redis.call('ZSCORE', prefix .. 'dead', boot) then return {0, {}, {}} end
local index = 'active:' .. boot
local held = redis.call('ZCARD', prefix .. index)
local ids = redis.call('ZRANGE', prefix .. index, 0, limit - 1)
local again, failed = {}, {}
for _, id in ipairs(load_indexed(index, ids)) do
  local record = records[id]
  add_history(id, record, history)
  if record[CANCEL] then
    to_final(id, record, 'cancelled', now, keep)
  elseif record[STALLED] >= max_stalled then
    set('error', id, failure)
    to_final(id, record, 'failed', now, keep)
    failed[#failed + 1] = id
  else
    leave(id, record)
    record[DISPATCH] = record[DISPATCH] + 1
    record[STALLED] = record[STALLED] + 1
    to_waiting(id, record, now, now + grace)
    again[#again + 1] = id
  end
end
local more = held > #ids
if not more then
  unset('beats', boot)
  unset('infos', boot)
end
local rows = ready(again)
trim_grown(2 * limit, now)
flush()
return {more and 1 or 0, failed, rows}
