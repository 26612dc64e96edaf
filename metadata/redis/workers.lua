-- {} -> {boot, beat, info, active, ...}
refuse_where_nobody_can_write()
local beats = redis.call('HGETALL', prefix .. 'beats')
local answer = {}
for i = 1, #beats, 2 do
  local at = (i - 1) * 2
  answer[at + 1] = beats[i]
  answer[at + 2] = tonumber(beats[i + 1])
  answer[at + 3] = redis.call('HGET', prefix .. 'infos', beats[i]) or ''
  answer[at + 4] = redis.call('ZCARD', prefix .. 'active:' .. beats[i])
end
return answer
