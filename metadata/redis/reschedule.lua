-- {now, grace, {{id, run_at or nil}, ...}} -> {state or '' or 'ready', ...}, {id, dispatch, priority, payload, ...} of the
-- ready ones
local now, grace, entries = input[1], input[2], input[3]
local due_by = math.min(now, store_clock())
load_first_of(entries)
local answer, again = {}, {}
for i, entry in ipairs(entries) do
  local id, run_at = entry[1], entry[2]
  local record = records[id]
  if not record then
    answer[i] = ''
  elseif record[STATE] ~= 'delayed' then
    answer[i] = record[STATE]
  else
    leave(id, record)
    if run_at and run_at > due_by then
      to_delayed(id, record, run_at)
      answer[i] = 'delayed'
    else
      record[RUN_AT] = run_at or now
      record[DISPATCH] = record[DISPATCH] + 1
      to_waiting(id, record, now, now + grace)
      answer[i] = 'ready'
      again[#again + 1] = id
    end
  end
end
local rows = ready(again)
flush()
return {answer, rows}
