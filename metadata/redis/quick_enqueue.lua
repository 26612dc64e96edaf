-- New jobs that are due at once, have no deduplication id, and whose ids nobody has. See head.lua and enqueue.lua.
do
  -- The boot whose standing claim gets a job that comes alone, and its fence; nil: nobody's, the job waits. Only who
  -- hears of it gets it. To be called once memory was taken: what is told is then recorded, too.
  local function taker(id, payload, expires_at)
    if redis.call('EXISTS', prefix .. 'standing') == 0 then return end
    if redis.call('EXISTS', prefix .. 'waiting', prefix .. 'paused') > 0 then return end
    local time = redis.call('TIME')
    local clock = time[1] * 1000 + math.floor(time[2] / 1000)
    if expires_at and expires_at <= clock then return end
    local told = string.format('%.0f:%d:', clock, #id) .. id .. payload
    for _ = 1, MAX_BATCH do
      local boot = redis.call('ZREVRANGE', prefix .. 'standing', 0, 0)[1] -- with the most slots to spare
      if not boot then return end
      local channel = prefix .. 'handed:' .. boot
      if redis.call('HEXISTS', prefix .. 'beats', boot) == 1 and not redis.call('ZSCORE', prefix .. 'dead', boot) then
        local hears = redis.pcall('PUBSUB', 'NUMSUB', channel) -- PUBLISH also counts who listens by patterns
        if hears.err then return end
        if hears[2] > 0 then
          if type(redis.pcall('PUBLISH', channel, told)) == 'table' then return end -- this user may not
          if tonumber(redis.call('ZINCRBY', prefix .. 'standing', -1, boot)) > 0 then return boot, clock end
          redis.call('ZREM', prefix .. 'standing', boot)
          return boot, clock
        end
      end
      redis.call('ZREM', prefix .. 'standing', boot)
    end
  end

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
    redis.call('HSET', prefix .. 'payload', unpack(payloads))
    local owner, fence
    if size == 1 then owner, fence = taker(ids[1], payloads[2], jobs[1][7]) end
    if owner then
      records[2] = cmsgpack.pack({
        'active', 1, '', owner, fence, 1, 0, 0, priority, false, false, expires_at or false, now, false, false, false,
        false, false, 0, false, task, created_at,
      })
      answer[3] = 'active'
    end
    redis.call('HSET', prefix .. 'record', unpack(records))
    if buried then
      redis.call('ZREM', prefix .. 'tombs', unpack(ids))
      redis.call('HDEL', prefix .. 'buried', unpack(ids))
    end
    if owner then
      redis.call('ZADD', prefix .. 'active:' .. owner, unpack(waiting))
    else
      redis.call('ZADD', prefix .. 'waiting', unpack(waiting))
      redis.call('ZADD', prefix .. 'outbox', unpack(outbox))
    end
    return answer
  end
end
