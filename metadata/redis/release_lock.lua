-- {name, holder, fence, ms for which a free lock is remembered} -> 1, or 0 where that is not who holds it
local name, holder, fence, free_for = input[1], input[2], input[3], input[4]
local FORGOTTEN = 8
local packed = redis.call('HGET', prefix .. 'locks', name)
local lock = packed and cmsgpack.unpack(packed)
if not lock or lock[1] ~= holder or lock[2] ~= fence then return 0 end
local clock = store_clock()
for _, old in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'freed', '-inf', clock - free_for, 'LIMIT', 0, FORGOTTEN)) do
  drop('freed', old)
  unset('locks', old)
end
lock[1] = false
-- Frees first: a full server must not keep a lock held (see `flush`).
redis.call('HDEL', prefix .. 'locks', name)
set('locks', name, cmsgpack.pack(lock))
put('freed', name, clock)
flush()
return 1
