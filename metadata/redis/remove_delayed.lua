-- {now, {{id}, ...}} -> {1 or 0, ...}
local now, entries = input[1], input[2]
load_first_of(entries)
local answer = {}
for i, entry in ipairs(entries) do
  local id = entry[1]
  local record = records[id]
  local delayed = record and record[STATE] == 'delayed'
  if delayed then
    free_of(id, record, true)
    bury_under_tombstone(id, record, now)
  end
  answer[i] = delayed and 1 or 0
end
flush()
return answer
