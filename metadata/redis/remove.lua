-- {now, {{id}, ...}} -> {removal, ...}
local now, entries = input[1], input[2]
load_first_of(entries)
local answer = {}
for i, entry in ipairs(entries) do
  local id = entry[1]
  local record = records[id]
  if not record then
    -- A tombstone answers the repeat.
    local known = (puts.tombs and puts.tombs[id]) or redis.call('ZSCORE', prefix .. 'tombs', id)
    answer[i] = known and 'removed' or 'unknown'
  elseif record[STATE] == 'active' then
    answer[i] = 'active'
  else
    free_of(id, record, true)
    bury_under_tombstone(id, record, now)
    answer[i] = 'removed'
  end
end
flush()
return answer
