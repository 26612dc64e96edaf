-- {now, grace, {{id}, ...}} -> {state or '' or 'ready', ...}, {id, dispatch, priority, payload, ...} of the ready ones
local now, grace, entries = input[1], input[2], input[3]
load_first_of(entries)
local answer, again = {}, {}
for i, entry in ipairs(entries) do
  local id = entry[1]
  local record = records[id]
  if not record then
    answer[i] = ''
  elseif not FINAL[record[STATE]] then
    answer[i] = record[STATE]
  else
    leave(id, record)
    record[FAILURES], record[STALLED] = 0, 0
    record[FINISHED_AT], record[PARKED_AT], record[CANCEL], record[GROUP], record[EXPIRES_AT] = false, false, false, false, false
    if record[RUN_AT] and record[RUN_AT] > now then record[RUN_AT] = now end
    unset('result', id)
    unset('error', id)
    unset('progress', id)
    record[DISPATCH] = record[DISPATCH] + 1
    to_waiting(id, record, now, now + grace)
    answer[i] = 'ready'
    again[#again + 1] = id
  end
end
local rows = ready(again)
flush()
return {answer, rows}
