-- {offset, limit} -> descriptions
local offset, limit = input[1], input[2]
return describe_schedules(redis.call('ZRANGE', prefix .. 'schedules', offset, offset + limit - 1))
