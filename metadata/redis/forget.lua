-- {} -> 1, or 0 where the queue still holds a job or a worker. Without jobs and workers these keys are all there is.
if redis.call('EXISTS', prefix .. 'record', prefix .. 'beats') > 0 then return 0 end
redis.call(
  'UNLINK', prefix .. 'paused', prefix .. 'marks', prefix .. 'tombs', prefix .. 'buried', prefix .. 'deduplication',
  prefix .. 'windows', prefix .. 'dead', prefix .. 'surplus'
)
return 1
