-- {now, {{id, revision, next_run, state}, ...}} -> a word for each
local now, entries = input[1], input[2]

local function resume(entry)
  local id, revision, next_run, state = unpack(entry, 1, 4)
  local schedule = schedules[id]
  if not schedule then return 'gone' end
  if not schedule[PAUSED] then return 'running' end
  if schedule[REVISION] ~= revision then return 'moved' end
  schedule[PAUSED], schedule[NEXT_RUN], schedule[KEPT] = false, next_run or false, state
  schedule[REVISION], schedule[CHANGED_AT] = revision + 1, now
  keep_schedule(id, schedule)
  return 'resumed'
end

load_schedules_of(entries)
local answer = {}
for i, entry in ipairs(entries) do answer[i] = resume(entry) end
flush_or_refuse()
return answer
