-- {boot, beat} -> 1, or 0 where the counter has moved on or the row is gone
local boot, beat = input[1], input[2]
local DAY, FORGOTTEN, MOST = 24 * 3600 * 1000, 16, 10000
if redis.call('ZSCORE', prefix .. 'dead', boot) then return 1 end
if tonumber(redis.call('HGET', prefix .. 'beats', boot) or -1) ~= beat then return 0 end
local clock = store_clock()
local old = redis.call('ZRANGEBYSCORE', prefix .. 'dead', '-inf', clock - 2 * DAY, 'LIMIT', 0, FORGOTTEN)
for _, other in ipairs(old) do
  -- While it has a row, it may hold jobs: forgotten, it would be taken for alive.
  if redis.call('HEXISTS', prefix .. 'beats', other) == 0 then drop('dead', other) end
end
-- Frees first: a full server must not keep recovery from its work (see `flush`).
redis.call('ZREMRANGEBYRANK', prefix .. 'dead', 0, -MOST)
drop('standing', boot)
put('dead', boot, clock)
flush()
return 1
