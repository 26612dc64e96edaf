-- {id, ...} -> 1, or 0 where there was none, for each
load_schedules(input)
local answer = {}
for i, id in ipairs(input) do
  answer[i] = schedules[id] and 1 or 0
  if schedules[id] then drop_schedule(id) end
end
flush()
return answer
