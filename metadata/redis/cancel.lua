-- {now, keep, {{id}, ...}} -> {cancel, state or '', owner or '', ...}
local now, keep, entries = input[1], input[2], input[3]

local function cancel(id)
  local record = records[id]
  if not record then return 'unknown', '', '' end
  if record[STATE] == 'active' then
    if not record[CANCEL] then
      record[CANCEL] = true
      changed[id] = true
      put('cancels:' .. record[OWNER], id, now)
    end
    return 'requested', 'active', record[OWNER]
  end
  if not FINAL[record[STATE]] then to_final(id, record, 'cancelled', now, keep) end
  return record[STATE] == 'cancelled' and 'cancelled' or 'final', record[STATE], ''
end

load_first_of(entries)
local answer = {}
for i, entry in ipairs(entries) do
  local at = i * 3
  answer[at - 2], answer[at - 1], answer[at] = cancel(entry[1])
end
trim_grown(2 * #entries, now)
flush()
return answer
