-- {id, dispatch, owner, value} -> 1, or 0 where the fence is not held
local id, dispatch, owner = input[1], input[2], input[3]
local record = record_of(id)
if not record or record[STATE] ~= 'active' or record[DISPATCH] ~= dispatch or record[OWNER] ~= owner
    or redis.call('ZSCORE', prefix .. 'dead', owner) then
  return 0
end
set('progress', id, input[4])
flush()
return 1
