-- {now, grace, jobs} -> {admission, id, state, dispatch, replaced id or '', ...}
local now, grace, jobs = input[1], input[2], input[3]
local due_by = math.min(now, store_clock())

load_first_of(jobs)
local answer = {}
for i, job in ipairs(jobs) do
  local at = i * 5
  answer[at - 4], answer[at - 3], answer[at - 2], answer[at - 1], answer[at] = enqueue(job, now, grace, due_by)
end
flush_or_refuse()
return answer
