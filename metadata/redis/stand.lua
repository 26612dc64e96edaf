-- {boot, jobs} -> 1: the boot's standing claim is for so many jobs now, of which 0 is none; 0: it is dead or unknown
local boot, jobs = input[1], input[2]
local lives = redis.call('HEXISTS', prefix .. 'beats', boot) == 1 and not redis.call('ZSCORE', prefix .. 'dead', boot)
if jobs > 0 and lives then
  redis.call('ZADD', prefix .. 'standing', jobs, boot)
else
  redis.call('ZREM', prefix .. 'standing', boot)
end
return lives and 1 or 0
