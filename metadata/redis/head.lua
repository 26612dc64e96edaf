-- The beginning of every script. KEYS[1] is the prefix "<namespace>:{<queue>}:" of all keys of one job queue, so
-- they share a slot; ARGV[1] is the whole call, packed by msgpack. Data only ever arrive in these two.
--
-- Then comes, for the operations of every job's life, a quick part (quick_*.lua). It takes a call whose entries are all
-- ordinary, and answers it; else it has written nothing, and what follows (record.lua, the operation's own file) decides
-- over the whole call, whatever is in it. Both do the same: a test runs each call through either; but jobs are handed
-- over to standing claims by the quick part of `enqueue` alone. The quick part saves
-- the making of all those functions and tables, which for a job that comes alone is most of the work, and takes records
-- that are equal, byte for byte, as one: what the first becomes all become.
--
-- Keys of a queue (z: sorted set, h: hash):
--   record h       id -> the packed array below              waiting z      id -> when it became waiting
--   payload h      id -> bytes                               outbox z       id -> when the relay may send it
--   result h       id -> bytes                               sent:<priority> z  id -> when its ticket was confirmed
--   error h        id -> bytes                               held z         id -> when a pause parked it
--   progress h     id -> bytes                               delayed z      id -> run_at
--   history h      <0..19>:<id> -> bytes, a ring             children z     id -> when it began to wait
--   deduplication h  id -> "<until or nothing>:<job id>"     active:<boot> z    id -> claimed_at
--   windows z      deduplication id -> until                 final:<state> z    id -> finished_at
--   tombs z        id -> when its record went                expire z       id -> finished_at + keep.age
--   buried h       id -> its last finish, of a tombstone     kept:<state>:<group> z  id -> finished_at
--   marks h        priority -> watermark                     surplus h      <state>:<group> -> keep.count, while more
--   beats h        boot -> counter                                          than that are kept
--   infos h        boot -> bytes                             cancels:<boot> z   id -> when it was asked for
--   dead z         boot -> when it was declared dead         paused         exists while paused
--   schedule h     id -> a packed array, see timetable.lua   schedules z    id -> 0: in the order of their bytes
--   runs z         id -> next_run, of schedules not paused   standing z     boot -> how many jobs it may be handed
-- Channels: handed:<boot>, of the jobs that its standing claim has got; ended, of jobs that are final now.
-- In place of a queue, for the locks of the namespace:
--   locks h        name -> packed {holder or false, fence, beat, ttl}     freed z  name -> when it was released

local prefix = KEYS[1]
local input = cmsgpack.unpack(ARGV[1])

-- Positions in a record. `false` stands for nothing. New ones go to the end: older scripts carry them along.
local STATE, DISPATCH, OUTBOX, OWNER, FENCE, ATTEMPTS, FAILURES, STALLED, PRIORITY = 1, 2, 3, 4, 5, 6, 7, 8, 9
local SENT_AT, RUN_AT, EXPIRES_AT, CLAIMED_AT, FINISHED_AT, PARKED_AT, CANCEL = 10, 11, 12, 13, 14, 15, 16
local DEDUPLICATION, GROUP, HISTORY, LAST_FINISH, TASK, CREATED_AT = 17, 18, 19, 20, 21, 22

local MAX_HISTORY = 20
local MAX_BATCH = 128 -- of the contract: callers split larger ones
local MAX_TOLD = 1024 -- bytes of a result that is told with its job's end

-- Tell who waits for the ends of jobs, if anybody does. `results`: id -> bytes.
local function tell_ends(ids, results)
  local channel = prefix .. 'ended'
  local hearers = redis.pcall('PUBSUB', 'NUMSUB', channel)[2]
  if not hearers or hearers == 0 then return end
  local told = {}
  for i, id in ipairs(ids) do
    local result = results[id]
    if result and #result > MAX_TOLD then result = nil end
    told[i] = #id .. ':' .. (result and #result or '') .. ':' .. id .. (result or '')
  end
  redis.pcall('PUBLISH', channel, table.concat(told))
end
