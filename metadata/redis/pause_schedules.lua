-- {now, {id, ...}} -> 1, or 0 where there is no such schedule, for each
local now, ids = input[1], input[2]
load_schedules(ids)
local answer = {}
for i, id in ipairs(ids) do
  local schedule = schedules[id]
  if schedule and not schedule[PAUSED] then
    schedule[PAUSED], schedule[REVISION], schedule[CHANGED_AT] = true, schedule[REVISION] + 1, now
    keep_schedule(id, schedule)
  end
  answer[i] = schedule and 1 or 0
end
flush()
return answer
