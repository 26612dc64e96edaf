-- {now, adoption_window, limit} -> removed, more
local now, window, limit = input[1], input[2], input[3]
local removed, more = 0, false

local aged = redis.call('ZRANGEBYSCORE', prefix .. 'expire', '-inf', string.format('(%.0f', now), 'LIMIT', 0, limit)
for _, id in ipairs(load_indexed('expire', aged)) do
  bury_under_tombstone(id, records[id], now)
  removed = removed + 1
end

local surplus = redis.call('HGETALL', prefix .. 'surplus')
for i = 1, #surplus, 2 do
  if removed < limit then
    removed = removed + trim(surplus[i], tonumber(surplus[i + 1]), limit - removed, now)
  else
    more = true
  end
end
if sets.surplus and next(sets.surplus) then more = true end

local tombs = redis.call(
  'ZRANGEBYSCORE', prefix .. 'tombs', '-inf', string.format('(%.0f', now - window), 'LIMIT', 0, limit)
for _, id in ipairs(tombs) do
  drop('tombs', id)
  unset('buried', id)
end

local windows = redis.call('ZRANGEBYSCORE', prefix .. 'windows', '-inf', now, 'LIMIT', 0, limit)
for _, deduplication in ipairs(windows) do free(deduplication) end

flush()
return {removed, (more or #aged == limit or #tombs == limit or #windows == limit) and 1 or 0}
