-- {now, owner, keep_expired, {{id, dispatch, created_at or nil, job or nil}, ...}, alone_from or nil} -> {verdict, fence, attempt,
-- failures, stalled, parked_at or '', ...}; or the one string 'dead'.
local now, owner, keep, tickets, alone_from = input[1], input[2], input[3], input[4], input[5]
if redis.call('HEXISTS', prefix .. 'beats', owner) == 0 or redis.call('ZSCORE', prefix .. 'dead', owner) then
  return 'dead'
end
local clock = store_clock()
local due_by = math.min(now, clock)
local paused = redis.call('EXISTS', prefix .. 'paused') == 1
local marks = {}

-- Why a ticket does not get a job that is on record, in the order of `Jobs.claim`.
local function refusal(record, dispatch)
  local state = record[STATE]
  if FINAL[state] then return dispatch > record[DISPATCH] and 'ahead' or 'final' end
  if state == 'active' then
    if record[DISPATCH] == dispatch and record[OWNER] == owner then return 'mine' end
    return record[DISPATCH] >= dispatch and 'taken' or nil
  end
  if record[DISPATCH] > dispatch then return 'stale' end
  if state == 'delayed' and (record[DISPATCH] == dispatch or record[RUN_AT] > due_by) then return 'not-due' end
end

local function adopt(job, dispatch)
  local record = create(job)
  record[DISPATCH] = dispatch
  local wanted = job[8]
  if wanted then
    local holder = holder_of(wanted[1])
    if not holder or (holder.till and holder.till <= now) then
      hold(wanted[1], job[1], wanted[2] and now + wanted[2])
    end
  end
  return record
end

local function park_for_pause(id, record, dispatch)
  leave(id, record)
  record[STATE] = 'waiting'
  record[DISPATCH] = dispatch + 1
  record[OUTBOX] = 'held'
  put('waiting', id, now)
  put('held', id, now)
end

local function activate(id, record, dispatch)
  local priority = record[PRIORITY]
  if record[SENT_AT] and record[SENT_AT] > (marks[priority] or 0) then marks[priority] = record[SENT_AT] end
  leave(id, record)
  record[STATE] = 'active'
  record[DISPATCH] = dispatch
  record[OWNER] = owner
  record[CLAIMED_AT] = now
  record[ATTEMPTS] = record[ATTEMPTS] + 1
  record[FENCE] = math.max(record[FENCE] + 1, clock)
  put('active:' .. owner, id, now)
  if record[ATTEMPTS] > 1 then unset('progress', id) end
  if record[CANCEL] then put('cancels:' .. owner, id, now) end
end

local function claim(id, dispatch, created_at, job)
  local record = records[id]
  if not record then
    if tombstones[id] then return 'gone' end
    if not job then return 'unknown' end
    record = adopt(job, dispatch)
  else
    local verdict = refusal(record, dispatch)
    if created_at and created_at ~= record[CREATED_AT] then verdict = 'stale' end
    if verdict then return verdict end
  end
  if record[EXPIRES_AT] and record[EXPIRES_AT] <= due_by and record[ATTEMPTS] == 0 then
    record[DISPATCH] = dispatch
    to_final(id, record, 'expired', now, keep)
    return 'expired'
  end
  if paused then
    park_for_pause(id, record, dispatch)
    return 'paused'
  end
  if alone_from and record[STALLED] >= alone_from then return 'alone' end
  activate(id, record, dispatch)
  return 'claimed'
end

load_first_of(tickets)
local unknown = {}
for _, ticket in ipairs(tickets) do
  if not records[ticket[1]] then unknown[#unknown + 1] = ticket[1] end
end
if #unknown > 0 then
  for i, time in ipairs(redis.call('ZMSCORE', prefix .. 'tombs', unpack(unknown))) do
    tombstones[unknown[i]] = time and true or false
  end
end

local answer = {}
for i, ticket in ipairs(tickets) do
  local verdict = claim(ticket[1], ticket[2], ticket[3], ticket[4])
  local at = i * 6
  answer[at - 5] = verdict
  if verdict == 'claimed' or verdict == 'mine' then
    local record = records[ticket[1]]
    answer[at - 4] = record[FENCE]
    answer[at - 3] = record[ATTEMPTS]
    answer[at - 2] = record[FAILURES]
    answer[at - 1] = record[STALLED]
    answer[at] = record[PARKED_AT] or ''
  else
    answer[at - 4], answer[at - 3], answer[at - 2], answer[at - 1], answer[at] = 0, 0, 0, 0, ''
  end
end
for priority, mark in pairs(marks) do
  if mark > tonumber(redis.call('HGET', prefix .. 'marks', priority) or 0) then set('marks', priority, mark) end
end
trim_grown(2 * #tickets, now)
flush()
return answer
