-- {boot, info} -> alive, paused, {id to cancel, ...}
local boot = input[1]
local paused = redis.call('EXISTS', prefix .. 'paused')
if redis.call('ZSCORE', prefix .. 'dead', boot) then return {0, paused, {}} end
local cancels = redis.call('ZRANGE', prefix .. 'cancels:' .. boot, 0, -1)
-- Frees first: a full server must not end leases (see `flush`).
redis.call('HDEL', prefix .. 'infos', boot)
redis.call('HINCRBY', prefix .. 'beats', boot, 1)
redis.call('HSET', prefix .. 'infos', boot, input[2])
return {1, paused, cancels}
