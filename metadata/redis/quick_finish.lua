-- Ends of first runs that completed, with a result or none, where nothing need be pruned now: a few more than are to be
-- kept wait for more of them, or for the script `prune`. See head.lua and finish.lua.
do
  local now, outcomes = input[1], input[3]
  local size = #outcomes
  local first = outcomes[1] or {}
  local owner, keep = first[3], first[9]
  local rare = redis.call('EXISTS', prefix .. 'dead', prefix .. 'surplus') > 0
  local ordinary = size > 0 and size <= MAX_BATCH and not (rare and redis.call('ZSCORE', prefix .. 'dead', owner))
  local group = ordinary and 'completed:' .. keep[3]
  local excess = 0
  if ordinary and keep[2] then
    excess = redis.call('ZCARD', prefix .. 'kept:' .. group) + size - keep[2]
    ordinary = excess <= math.min(MAX_BATCH, math.floor(keep[2] / 64))
  end
  local ids = {}
  for i = 1, ordinary and size or 0 do
    local outcome = outcomes[i]
    local kept = outcome[9]
    if outcome[3] ~= owner or outcome[4] ~= 'completed' or outcome[6] or not outcome[7]
      or kept[1] ~= keep[1] or kept[2] ~= keep[2] or kept[3] ~= keep[3]
    then
      ordinary = false
    end
    ids[i] = outcome[1]
  end

  -- What a record becomes: {dispatch, packed, its place in the history's ring}; or nil.
  local function completed(record)
    if record[STATE] ~= 'active' or record[OWNER] ~= owner or record[ATTEMPTS] ~= 1 then return end
    if record[CANCEL] or record[DEDUPLICATION] then return end
    local place = record[HISTORY] % MAX_HISTORY .. ':'
    record[LAST_FINISH] = string.format('%.0f', record[DISPATCH]) .. ':completed:' .. owner
    record[STATE], record[OUTBOX], record[SENT_AT], record[OWNER] = 'completed', '', false, false
    record[HISTORY], record[FINISHED_AT], record[GROUP] = record[HISTORY] + 1, now, keep[3]
    return {record[DISPATCH], cmsgpack.pack(record), place}
  end

  local packed = ordinary and redis.call('HMGET', prefix .. 'record', unpack(ids)) or {}
  local moment = string.format('%.0f', now)
  local known, seen, rows, history, results, final, answer = {}, {}, {}, {}, {}, {}, {}
  local result_of = {}
  for i = 1, #packed do
    local bytes, outcome = packed[i], outcomes[i]
    local id = ids[i]
    local new = bytes and known[bytes]
    if bytes and not new then
      new = completed(cmsgpack.unpack(bytes))
      known[bytes] = new
    end
    if not new or seen[id] or new[1] ~= outcome[2] then
      ordinary = false
      break
    end
    seen[id] = true
    local at = i * 2
    rows[at - 1], rows[at] = id, new[2]
    history[at - 1], history[at] = new[3] .. id, outcome[7]
    final[at - 1], final[at] = moment, id
    if outcome[5] then
      local more = #results
      results[more + 1], results[more + 2] = id, outcome[5]
      result_of[id] = outcome[5]
    end
    at = i * 4
    answer[at - 3], answer[at - 2], answer[at - 1], answer[at] = 'done', 'completed', new[1], ''
  end

  if ordinary then
    -- Frees before it takes, so that runs can end on a full server.
    redis.call('ZREM', prefix .. 'active:' .. owner, unpack(ids))
    if excess > 0 then
      redis.call('HSET', prefix .. 'surplus', group, keep[2])
    elseif rare then
      redis.call('HDEL', prefix .. 'surplus', group)
    end
    redis.call('HSET', prefix .. 'record', unpack(rows))
    redis.call('HSET', prefix .. 'history', unpack(history))
    if #results > 0 then redis.call('HSET', prefix .. 'result', unpack(results)) end
    redis.call('ZADD', prefix .. 'final:completed', unpack(final))
    redis.call('ZADD', prefix .. 'kept:' .. group, unpack(final))
    if keep[1] then
      local gone = string.format('%.0f', now + keep[1])
      for i = 1, size do final[i * 2 - 1] = gone end
      redis.call('ZADD', prefix .. 'expire', unpack(final))
    end
    tell_ends(ids, result_of)
    return answer
  end
end
