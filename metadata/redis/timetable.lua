-- Put in front of the scripts about schedules. A schedule is a packed array; `false` stands for nothing.
local TRIGGER, DEFINITION, KEPT, NEXT_RUN, PAUSED, REVISION, MADE_AT, CHANGED_AT, LAST_FIRING = 1, 2, 3, 4, 5, 6, 7, 8, 9

local schedules = {}

local function load_schedules(ids)
  local packed = read_fields('schedule', ids)
  for i, id in ipairs(ids) do
    if schedules[id] == nil then schedules[id] = packed[i] and cmsgpack.unpack(packed[i]) end
  end
end

local function load_schedules_of(entries)
  local ids = {}
  for i, entry in ipairs(entries) do ids[i] = entry[1] end
  load_schedules(ids)
end

local function keep_schedule(id, schedule)
  schedules[id] = schedule
  set('schedule', id, cmsgpack.pack(schedule))
  put('schedules', id, 0)
  if schedule[PAUSED] or not schedule[NEXT_RUN] then
    drop('runs', id)
  else
    put('runs', id, schedule[NEXT_RUN])
  end
end

local function drop_schedule(id)
  schedules[id] = false
  unset('schedule', id)
  drop('schedules', id)
  drop('runs', id)
end

-- {id, trigger, definition, state, next_run or '', 1 if paused, revision, created_at, updated_at} for each id that has a
-- schedule; {id} for one that has none.
local function describe_schedules(ids)
  load_schedules(ids)
  local answer = {}
  for i, id in ipairs(ids) do
    local s = schedules[id]
    answer[i] = s and {
      id, s[TRIGGER], s[DEFINITION], s[KEPT], s[NEXT_RUN] or '', s[PAUSED] and 1 or 0, s[REVISION], s[MADE_AT],
      s[CHANGED_AT],
    } or {id}
  end
  return answer
end
