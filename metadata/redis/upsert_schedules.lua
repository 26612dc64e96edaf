-- {now, {id, trigger, definition, state, next_run, revision}, ...} -> {word, next_run or '', revision, ...}
local now, entries = input[1], input[2]

local function upsert(entry)
  local id, trigger, definition, state, next_run, revision = unpack(entry, 1, 6)
  local known = schedules[id]
  if not known then
    if revision then return 'gone', false, 0 end
    keep_schedule(id, {trigger, definition, state, next_run or false, false, 1, now, now, ''})
    return 'created', next_run, 1
  end
  local same = known[TRIGGER] == trigger
  if same and known[DEFINITION] == definition then return 'unchanged', known[NEXT_RUN], known[REVISION] end
  if revision and revision ~= known[REVISION] then return 'conflict', known[NEXT_RUN], known[REVISION] end
  known[TRIGGER], known[DEFINITION] = trigger, definition
  if not same then known[NEXT_RUN], known[KEPT] = next_run or false, state end
  known[REVISION], known[CHANGED_AT] = known[REVISION] + 1, now
  keep_schedule(id, known)
  return 'updated', known[NEXT_RUN], known[REVISION]
end

load_schedules_of(entries)
local answer = {}
for i, entry in ipairs(entries) do
  local word, next_run, revision = upsert(entry)
  local at = i * 3
  answer[at - 2], answer[at - 1], answer[at] = word, next_run or '', revision
end
flush_or_refuse()
return answer
