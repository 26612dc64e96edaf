-- {index or '' for active, offset, limit, newest first} -> {id, ...}, then as `get`
local index, offset, limit, newest_first = input[1], input[2], input[3], input[4]

-- Active jobs are indexed by owner: the page is cut from the first `offset + limit` of each.
local function active()
  local found = {}
  for _, boot in ipairs(redis.call('HKEYS', prefix .. 'beats')) do
    local key, last = prefix .. 'active:' .. boot, offset + limit - 1
    local part = redis.call(newest_first and 'ZREVRANGE' or 'ZRANGE', key, 0, last, 'WITHSCORES')
    for i = 1, #part, 2 do found[#found + 1] = {part[i], tonumber(part[i + 1])} end
  end
  table.sort(found, function(one, other)
    if newest_first then one, other = other, one end
    if one[2] ~= other[2] then return one[2] < other[2] end
    return one[1] < other[1]
  end)
  local ids = {}
  for i = offset + 1, math.min(offset + limit, #found) do ids[#ids + 1] = found[i][1] end
  return ids
end

local ids
if index == '' then
  ids = active()
else
  ids = redis.call(newest_first and 'ZREVRANGE' or 'ZRANGE', prefix .. index, offset, offset + limit - 1)
end
return {ids, describe(ids)}
