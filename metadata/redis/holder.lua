-- {deduplication id, now} -> job id or ''
local holder = holder_of(input[1])
if holder and (not holder.till or input[2] < holder.till) then return holder.id end
return ''
