-- {deduplication id} -> 1, or 0 where it was free
if not holder_of(input[1]) then return 0 end
free(input[1])
flush()
return 1
