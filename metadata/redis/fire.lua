-- {now, grace, {{id, due, revision, next_run, state, by, jobs}, ...}} -> {word, {admission, id, state, dispatch,
-- replaced id or '', ...}} for each
local now, grace, firings = input[1], input[2], input[3]
local due_by = math.min(now, store_clock())

-- Not what was recorded before and is forgotten: a repeat may come late.
local function enqueue_again(job)
  if not records[job[1]] and redis.call('ZSCORE', prefix .. 'tombs', job[1]) then
    return 'created', job[1], 'completed', 0, ''
  end
  return enqueue(job, now, grace, due_by)
end

local function enqueue_all(jobs, again)
  local answer = {}
  for i, job in ipairs(jobs) do
    local at = i * 5
    answer[at - 4], answer[at - 3], answer[at - 2], answer[at - 1], answer[at] =
      (again and enqueue_again or enqueue)(job, now, grace, due_by)
  end
  return answer
end

local function fire(firing)
  local id, due, revision, next_run, state, by, jobs = unpack(firing, 1, 7)
  local schedule = schedules[id]
  if not schedule then return {'gone', {}} end
  local this = digits[due] .. ':' .. by
  local current = schedule[REVISION] == revision
  if current and schedule[LAST_FIRING] == this then return {'fired', enqueue_all(jobs, true)} end
  if schedule[PAUSED] then return {'paused', {}} end
  if not current or schedule[NEXT_RUN] ~= due then return {'moved', {}} end
  schedule[NEXT_RUN], schedule[KEPT], schedule[LAST_FIRING] = next_run or false, state, this
  keep_schedule(id, schedule)
  return {'fired', enqueue_all(jobs)}
end

load_schedules_of(firings)
local all = {}
for _, firing in ipairs(firings) do
  for _, job in ipairs(firing[7]) do all[#all + 1] = job end
end
load_first_of(all)
local answer = {}
for i, firing in ipairs(firings) do answer[i] = fire(firing) end
flush_or_refuse()
return answer
