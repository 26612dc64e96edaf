-- {name, holder, fence} -> 1, or 0 where that is not who holds it
local name, holder, fence = input[1], input[2], input[3]
local packed = redis.call('HGET', prefix .. 'locks', name)
local lock = packed and cmsgpack.unpack(packed)
if not lock or lock[1] ~= holder or lock[2] ~= fence then return 0 end
lock[3] = lock[3] + 1
-- Frees first: a full server must not take locks from who holds them (see `flush`).
redis.call('HDEL', prefix .. 'locks', name)
set('locks', name, cmsgpack.pack(lock))
flush()
return 1
