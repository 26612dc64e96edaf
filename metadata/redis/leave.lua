-- {boot}
local boot = input[1]
redis.call('ZREM', prefix .. 'standing', boot)
if redis.call('ZCARD', prefix .. 'active:' .. boot) == 0 then
  redis.call('HDEL', prefix .. 'beats', boot)
  redis.call('HDEL', prefix .. 'infos', boot)
end
return 1
