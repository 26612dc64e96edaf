-- Put between record.lua and the scripts that enqueue jobs. A job is given as `create` takes it.

-- The holder of the deduplication id that keeps this job out; else nil, and the id of the job that it replaces.
local function admit(job, now)
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

-- admission, id, state, dispatch, replaced id or ''. A job whose run_at is later than `due_by` is delayed.
local function enqueue(job, now, grace, due_by)
  local id = job[1]
  local record = records[id]
  if record then
    local payload = sets.payload and sets.payload[id] or redis.call('HGET', prefix .. 'payload', id)
    return payload == job[3] and 'created' or 'existing', id, record[STATE], record[DISPATCH], ''
  end
  local replaced = ''
  if job[8] then
    local holder
    holder, replaced = admit(job, now)
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
