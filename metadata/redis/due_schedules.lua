-- {now, limit} -> {next next_run or '', store clock}, descriptions
local now, limit = input[1], input[2]
local clock = store_clock()
local ids = redis.call('ZRANGEBYSCORE', prefix .. 'runs', '-inf', math.min(now, clock), 'LIMIT', 0, limit)
local first = redis.call('ZRANGE', prefix .. 'runs', #ids, #ids, 'WITHSCORES')
return {{first[2] or '', clock}, describe_schedules(ids)}
