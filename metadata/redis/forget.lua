-- {} -> 1, or 0 where the queue still holds a job, a worker or a schedule. Without them these keys are all there is.
if redis.call('EXISTS', prefix .. 'record', prefix .. 'beats', prefix .. 'schedule') > 0 then return 0 end
redis.call(
  'UNLINK', prefix .. 'paused', prefix .. 'marks', prefix .. 'tombs', prefix .. 'buried', prefix .. 'deduplication',
  prefix .. 'windows', prefix .. 'dead', prefix .. 'surplus', prefix .. 'standing'
)
return 1
