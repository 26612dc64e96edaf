-- {now, grace, {{id, dispatch, owner, ending, result, error, history, run_at, keep}, ...}} -> {finish, state or '',
-- dispatch, other owner or '', ...}
local now, grace, outcomes = input[1], input[2], input[3]
local due_by = math.min(now, store_clock())
local ENDED = {completed = true, failed = true, cancelled = true}
local dead = {}

local function lost(owner)
  if dead[owner] == nil then dead[owner] = redis.call('ZSCORE', prefix .. 'dead', owner) end
  return dead[owner]
end

local function finish(id, dispatch, owner, ending, outcome)
  local record = records[id]
  local fence = fence_of(dispatch, owner, ending)
  if not record then return redis.call('HGET', prefix .. 'buried', id) == fence and 'recorded' or 'refused' end
  if record[STATE] ~= 'active' or record[DISPATCH] ~= dispatch or record[OWNER] ~= owner or lost(owner) then
    return record[LAST_FINISH] == fence and 'recorded' or 'refused'
  end
  record[LAST_FINISH] = fence
  if outcome[7] then add_history(id, record, outcome[7]) end
  if ending == 'retry' or ending == 'failed' then record[FAILURES] = record[FAILURES] + 1 end
  if record[CANCEL] and not ENDED[ending] then ending = 'cancelled' end
  if outcome[6] then set('error', id, outcome[6]) elseif ENDED[ending] and record[ATTEMPTS] > 1 then unset('error', id) end
  if ENDED[ending] then
    if outcome[5] then set('result', id, outcome[5]) end
    to_final(id, record, ending, now, outcome[9])
    return 'done'
  end
  leave(id, record)
  if ending == 'park' and not record[PARKED_AT] then record[PARKED_AT] = now end
  if outcome[8] and outcome[8] > due_by then
    to_delayed(id, record, outcome[8])
  else
    record[DISPATCH] = dispatch + 1
    to_waiting(id, record, now, now + grace)
  end
  return 'done'
end

-- Who runs the job now, or has ended it, if that is not `owner`.
local function other(record, owner)
  local found = record[OWNER]
  if FINAL[record[STATE]] and record[LAST_FINISH] then found = string.match(record[LAST_FINISH], '^%d+:[^:]*:(.*)$') end
  return found and found ~= owner and found or ''
end

load_first_of(outcomes)
local answer = {}
for i, outcome in ipairs(outcomes) do
  local id, at = outcome[1], i * 4
  answer[at - 3] = finish(id, outcome[2], outcome[3], outcome[4], outcome)
  local record = records[id]
  answer[at - 2] = record and record[STATE] or ''
  answer[at - 1] = record and record[DISPATCH] or 0
  answer[at] = record and answer[at - 3] == 'refused' and other(record, outcome[3]) or ''
end
trim_grown(2 * #outcomes + 30, now) -- a few more than need be: those that end next find nothing to prune
flush()
return answer
