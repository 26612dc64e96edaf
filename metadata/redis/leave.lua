-- {boot}
local boot = input[1]
if redis.call('ZCARD', prefix .. 'active:' .. boot) == 0 then
  redis.call('HDEL', prefix .. 'beats', boot)
  redis.call('HDEL', prefix .. 'infos', boot)
end
return 1
