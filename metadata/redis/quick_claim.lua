-- Tickets of jobs that wait for their first run, whose sending is not held. See head.lua and claim.lua.
do
  local now, owner, tickets, alone_from = input[1], input[2], input[4], input[5]
  local size = #tickets
  local ordinary = size > 0 and size <= MAX_BATCH and redis.call('HEXISTS', prefix .. 'beats', owner) == 1
    and (redis.call('EXISTS', prefix .. 'dead', prefix .. 'paused') == 0
      or redis.call('EXISTS', prefix .. 'paused') == 0 and not redis.call('ZSCORE', prefix .. 'dead', owner))
  local time = redis.call('TIME')
  local clock = time[1] * 1000 + math.floor(time[2] / 1000)
  local due_by = now < clock and now or clock
  local ids = {}
  for i = 1, ordinary and size or 0 do ids[i] = tickets[i][1] end

  -- What a record becomes: {dispatch, created_at, packed, fence, failures, stalled, when it was sent or false}; or nil.
  local sent_of -- the priority of those that were sent
  local function claimed(record)
    if record[STATE] ~= 'waiting' or record[ATTEMPTS] ~= 0 or record[CANCEL] or record[PARKED_AT] then return end
    if record[EXPIRES_AT] and record[EXPIRES_AT] <= due_by then return end
    if alone_from and record[STALLED] >= alone_from then return end
    local sent_at = false
    if record[OUTBOX] == 'sent' then
      if not record[SENT_AT] or sent_of and sent_of ~= record[PRIORITY] then return end
      sent_at, sent_of = record[SENT_AT], record[PRIORITY]
    elseif record[OUTBOX] ~= 'due' or record[SENT_AT] then
      return
    end
    local fence = record[FENCE] + 1 < clock and clock or record[FENCE] + 1
    record[STATE], record[OUTBOX], record[SENT_AT], record[OWNER] = 'active', '', false, owner
    record[CLAIMED_AT], record[ATTEMPTS], record[FENCE] = now, 1, fence
    return {
      record[DISPATCH], record[CREATED_AT], cmsgpack.pack(record), fence, record[FAILURES], record[STALLED], sent_at,
    }
  end

  local packed = ordinary and redis.call('HMGET', prefix .. 'record', unpack(ids)) or {}
  local moment, mark = string.format('%.0f', now), 0
  local known, seen, rows, active, due, sent, answer = {}, {}, {}, {}, {}, {}, {}
  for i = 1, #packed do
    local bytes, ticket = packed[i], tickets[i]
    local id = ids[i]
    local new = bytes and known[bytes]
    if bytes and not new then
      new = claimed(cmsgpack.unpack(bytes))
      known[bytes] = new
    end
    if not new or seen[id] or new[1] ~= ticket[2] or ticket[3] and ticket[3] ~= new[2] then
      ordinary = false
      break
    end
    seen[id] = true
    if new[7] then
      sent[#sent + 1] = id
      if new[7] > mark then mark = new[7] end
    else
      due[#due + 1] = id
    end
    local at = i * 2
    rows[at - 1], rows[at] = id, new[3]
    active[at - 1], active[at] = moment, id
    at = i * 6
    answer[at - 5], answer[at - 4], answer[at - 3], answer[at - 2], answer[at - 1], answer[at] =
      'claimed', new[4], 1, new[5], new[6], ''
  end

  if ordinary then
    local moves = mark > 0 and mark > tonumber(redis.call('HGET', prefix .. 'marks', sent_of) or 0)
    redis.call('ZREM', prefix .. 'waiting', unpack(ids))
    if #due > 0 then redis.call('ZREM', prefix .. 'outbox', unpack(due)) end
    if #sent > 0 then redis.call('ZREM', prefix .. 'sent:' .. sent_of, unpack(sent)) end
    redis.call('HSET', prefix .. 'record', unpack(rows))
    if moves then redis.call('HSET', prefix .. 'marks', sent_of, mark) end
    redis.call('ZADD', prefix .. 'active:' .. owner, unpack(active))
    return answer
  end
end
