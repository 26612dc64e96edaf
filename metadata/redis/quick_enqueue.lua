-- New jobs that are due at once, have no deduplication id, and whose ids nobody has. See head.lua and enqueue.lua.
do
  local now, due, jobs = input[1], string.format('%.0f', input[1] + input[2]), input[3]
  local ids, seen, size = {}, {}, #jobs
  local ordinary = size > 0 and size <= MAX_BATCH
  for i = 1, ordinary and size or 0 do
    local job = jobs[i]
    local id = job[1]
    if seen[id] or job[6] or job[8] then ordinary = false end
    seen[id] = true
    ids[i] = id
  end
  if ordinary then
    for _, there in ipairs(redis.call('HMGET', prefix .. 'record', unpack(ids))) do
      if there then ordinary = false end
    end
  end
  if ordinary then
    local moment, buried = string.format('%.0f', now), redis.call('EXISTS', prefix .. 'tombs') == 1
    local records, payloads, waiting, outbox, answer = {}, {}, {}, {}, {}
    local task, priority, created_at, expires_at, record
    for i = 1, size do
      local job, at = jobs[i], i * 2
      local id = job[1]
      if not record or job[2] ~= task or job[4] ~= priority or job[5] ~= created_at or job[7] ~= expires_at then
        task, priority, created_at, expires_at = job[2], job[4], job[5], job[7]
        record = cmsgpack.pack({
          'waiting', 1, 'due', false, 0, 0, 0, 0, priority, false, false, expires_at or false, false, false, false,
          false, false, false, 0, false, task, created_at,
        })
      end
      records[at - 1], records[at] = id, record
      payloads[at - 1], payloads[at] = id, job[3]
      waiting[at - 1], waiting[at] = moment, id
      outbox[at - 1], outbox[at] = due, id
      at = i * 5
      answer[at - 4], answer[at - 3], answer[at - 2], answer[at - 1], answer[at] = 'created', id, 'waiting', 1, ''
    end
    -- Takes first, so that a full server refuses it as a whole.
    redis.call('HSET', prefix .. 'record', unpack(records))
    redis.call('HSET', prefix .. 'payload', unpack(payloads))
    if buried then
      redis.call('ZREM', prefix .. 'tombs', unpack(ids))
      redis.call('HDEL', prefix .. 'buried', unpack(ids))
    end
    redis.call('ZADD', prefix .. 'waiting', unpack(waiting))
    redis.call('ZADD', prefix .. 'outbox', unpack(outbox))
    return answer
  end
end
