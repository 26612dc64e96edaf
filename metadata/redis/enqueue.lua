-- {now, grace, jobs} -> {admission, id, state, dispatch, replaced id or '', ...}
local now, grace, jobs = input[1], input[2], input[3]
local due_by = math.min(now, store_clock())

-- The holder of the deduplication id that keeps this job out; else nil, and the id of the job that it replaces.
local function admit(job)
  local wanted = job[8]
  local holder = holder_of(wanted[1])
  if not holder or (holder.till and holder.till <= now) then
    hold(wanted[1], job[1], wanted[2] and now + wanted[2])
    return nil, ''
  end
  if wanted[3] and wanted[2] and holder.till then hold(wanted[1], holder.id, now + wanted[2]) end
  local record = record_of(holder.id)
  if not (wanted[4] and record and record[STATE] == 'delayed') then return holder.id end
  if record[DISPATCH] > 0 then
    bury_under_tombstone(holder.id, record, now)
  else
    bury(holder.id, record)
  end
  hold(wanted[1], job[1], holder_of(wanted[1]).till)
  return nil, holder.id
end

local function enqueue(job)
  local id = job[1]
  local record = records[id]
  if record then
    local payload = sets.payload and sets.payload[id] or redis.call('HGET', prefix .. 'payload', id)
    return payload == job[3] and 'created' or 'existing', id, record[STATE], record[DISPATCH], ''
  end
  local replaced = ''
  if job[8] then
    local holder
    holder, replaced = admit(job)
    if holder then
      record = record_of(holder)
      -- A window may outlive its record.
      if not record then return 'deduplicated', holder, 'completed', 0, '' end
      return 'deduplicated', holder, record[STATE], record[DISPATCH], ''
    end
  end
  record = create(job)
  if job[6] and job[6] > due_by then
    to_delayed(id, record, job[6])
  else
    record[DISPATCH] = 1
    to_waiting(id, record, now, now + grace)
  end
  return replaced == '' and 'created' or 'replaced', id, record[STATE], record[DISPATCH], replaced
end

load_first_of(jobs)
local answer = {}
for i, job in ipairs(jobs) do
  local at = i * 5
  answer[at - 4], answer[at - 3], answer[at - 2], answer[at - 1], answer[at] = enqueue(job)
end
flush_or_refuse()
return answer
