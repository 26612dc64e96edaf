-- {now, grace, {{id, due, revision, next_run, state, by, jobs}, ...}} -> {word, {admission, id, state, dispatch,
-- replaced id or '', ...}} for each
local now, grace, firings = input[1], input[2], input[3]
local due_by = math.min(now, store_clock())

local function enqueue_all(jobs)
  local answer = {}
  for i, job in ipairs(jobs) do
    local at = i * 5
    answer[at - 4], answer[at - 3], answer[at - 2], answer[at - 1], answer[at] = enqueue(job, now, grace, due_by)
  end
  return answer
end

local function fire(firing)
  local id, due, revision, next_run, state, by, jobs = unpack(firing, 1, 7)
  local schedule = schedules[id]
  if not schedule then return {'gone', {}} end
  local this = digits[due] .. ':' .. by
  local current = schedule[REVISION] == revision
  if current and schedule[LAST_FIRING] == this then return {'fired', enqueue_all(jobs)} end
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
