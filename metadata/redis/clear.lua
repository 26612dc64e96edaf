-- {index, before, limit, now} -> {id, ...}
local ids = index_below(input[1], string.format('(%.0f', input[2]), input[3])
for _, id in ipairs(ids) do
  free_of(id, records[id], true)
  bury_under_tombstone(id, records[id], input[4])
end
flush()
return ids
