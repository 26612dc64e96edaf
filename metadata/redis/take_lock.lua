-- {name, holder, ttl, fence seen or nil, beat seen or nil} -> granted, fence, beat, ttl
local name, holder, ttl, fence_seen, beat_seen = input[1], input[2], input[3], input[4], input[5]
local packed = redis.call('HGET', prefix .. 'locks', name)
local lock = packed and cmsgpack.unpack(packed) -- {holder or false, fence, beat, ttl}
if not lock or not lock[1] or (fence_seen == lock[2] and beat_seen == lock[3]) then
  lock = {holder, math.max(lock and lock[2] + 1 or 0, store_clock()), 1, ttl}
  drop('freed', name)
  set('locks', name, cmsgpack.pack(lock))
  flush_or_refuse()
else
  refuse_where_nobody_can_write()
end
return {lock[1] == holder and 1 or 0, lock[2], lock[3], lock[4]}
