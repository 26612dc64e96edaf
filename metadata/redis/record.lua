-- What the scripts share; see head.lua.
--
-- A script reads first, changes records in Lua's memory, and writes with `flush` as its last act: nothing can fail
-- after the first write, since Redis does not roll back. Entries of one call see each other through that memory.

local CHUNK = 4000 -- values given to one command: unpack() overflows Lua's stack near 8000
local FINAL = {completed = true, failed = true, cancelled = true, expired = true}

-- Redis prints a number that is given to a command with %.17g, which costs as much as the command; moments repeat.
local digits = setmetatable({}, {__index = function(cache, number)
  local text = string.format('%.0f', number)
  cache[number] = text
  return text
end})

local function store_clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Writes, collected ---------------------------------------------------------------------------------------------------

local puts, drops, sets, unsets = {}, {}, {}, {}

local function bucket(buckets, key)
  local found = buckets[key]
  if not found then
    found = {}
    buckets[key] = found
  end
  return found
end

local function put(key, member, score)
  bucket(puts, key)[member] = score
  if drops[key] then drops[key][member] = nil end
end

local function drop(key, member)
  bucket(drops, key)[member] = true
  if puts[key] then puts[key][member] = nil end
end

local function set(key, field, value)
  bucket(sets, key)[field] = value
  if unsets[key] then unsets[key][field] = nil end
end

local function unset(key, field)
  bucket(unsets, key)[field] = true
  if sets[key] then sets[key][field] = nil end
end

local function send(command, key, values)
  for first = 1, #values, CHUNK do
    redis.call(command, prefix .. key, unpack(values, first, math.min(first + CHUNK - 1, #values)))
  end
end

local function send_members(command, buckets)
  for key, members in pairs(buckets) do
    local values, size = {}, 0
    for member in pairs(members) do
      size = size + 1
      values[size] = member
    end
    send(command, key, values)
  end
end

local function send_drops() send_members('ZREM', drops) end
local function send_unsets() send_members('HDEL', unsets) end

local function send_sets()
  for key, fields in pairs(sets) do
    local values, size = {}, 0
    for field, value in pairs(fields) do
      values[size + 1] = field
      values[size + 2] = value
      size = size + 2
    end
    send('HSET', key, values)
  end
end

local function send_puts()
  for key, members in pairs(puts) do
    local values, size = {}, 0
    for member, score in pairs(members) do
      values[size + 1] = digits[score]
      values[size + 2] = member
      size = size + 2
    end
    send('ZADD', key, values)
  end
end

-- Records -------------------------------------------------------------------------------------------------------------

local records, changed = {}, {}

local function read_fields(key, fields)
  local values, size = {}, 0
  for first = 1, #fields, CHUNK do
    local part = redis.call('HMGET', prefix .. key, unpack(fields, first, math.min(first + CHUNK - 1, #fields)))
    for i = 1, #part do values[size + i] = part[i] end
    size = size + #part
  end
  return values
end

local function load_records(ids)
  local missing, size = {}, 0
  for _, id in ipairs(ids) do
    if records[id] == nil then
      size = size + 1
      missing[size] = id
      records[id] = false
    end
  end
  local packed = read_fields('record', missing)
  for i = 1, size do
    if packed[i] then records[missing[i]] = cmsgpack.unpack(packed[i]) end
  end
end

local function record_of(id)
  if records[id] == nil then load_records({id}) end
  return records[id]
end

local function load_first_of(entries)
  local ids = {}
  for i, entry in ipairs(entries) do ids[i] = entry[1] end
  load_records(ids)
end

-- The ids of an index that have a record; others, which a damaged store might hold, are dropped from the index.
local function load_indexed(key, ids)
  load_records(ids)
  local found, size = {}, 0
  for _, id in ipairs(ids) do
    if records[id] then
      size = size + 1
      found[size] = id
    else
      drop(key, id)
    end
  end
  return found
end

local function index_below(key, bound, limit)
  return load_indexed(key, redis.call('ZRANGEBYSCORE', prefix .. key, '-inf', bound, 'LIMIT', 0, limit))
end

-- {id, dispatch, priority, payload, ...} of waiting jobs, for whoever sends their tickets.
local function ready(ids)
  local answer, payloads = {}, read_fields('payload', ids)
  for i, id in ipairs(ids) do
    local record, at = records[id], i * 4
    answer[at - 3] = id
    answer[at - 2] = record[DISPATCH]
    answer[at - 1] = record[PRIORITY]
    answer[at] = payloads[i]
  end
  return answer
end

-- id -> true or false, where it was looked up
local tombstones = {}

-- A job as it is sent: {id, task, payload, priority, created_at, run_at, expires_at, deduplication}.
local function create(job)
  local record = {
    'waiting', 0, '', false, 0, 0, 0, 0, job[4],
    false, job[6] or false, job[7] or false, false, false, false, false,
    job[8] and job[8][1] or false, false, 0, false, job[2], job[5],
  }
  records[job[1]] = record
  changed[job[1]] = true
  set('payload', job[1], job[3])
  if tombstones[job[1]] ~= false then
    drop('tombs', job[1])
    unset('buried', job[1])
  end
  return record
end

-- Take a job out of the indexes of the state it is in. Who calls puts it into those of its next one.
local function leave(id, record)
  local state = record[STATE]
  changed[id] = true
  if state == 'waiting' then
    drop('waiting', id)
    if record[OUTBOX] == 'due' then
      drop('outbox', id)
    elseif record[OUTBOX] == 'sent' then
      drop('sent:' .. record[PRIORITY], id)
    elseif record[OUTBOX] == 'held' then
      drop('held', id)
    end
  elseif state == 'delayed' then
    drop('delayed', id)
  elseif state == 'active' then
    drop('active:' .. record[OWNER], id)
    if record[CANCEL] then drop('cancels:' .. record[OWNER], id) end
  elseif state == 'waiting-children' then
    drop('children', id)
  else
    drop('final:' .. state, id)
    drop('expire', id)
    if record[GROUP] then drop('kept:' .. state .. ':' .. record[GROUP], id) end
  end
  record[OUTBOX] = ''
  record[SENT_AT] = false
  record[OWNER] = false
end

local function to_outbox(id, record, due)
  record[OUTBOX] = 'due'
  record[SENT_AT] = false
  put('outbox', id, due)
end

local function to_waiting(id, record, now, due)
  record[STATE] = 'waiting'
  put('waiting', id, now)
  to_outbox(id, record, due)
end

local function to_delayed(id, record, run_at)
  record[STATE] = 'delayed'
  record[RUN_AT] = run_at
  put('delayed', id, run_at)
end

local function add_history(id, record, entry)
  set('history', record[HISTORY] % MAX_HISTORY .. ':' .. id, entry)
  record[HISTORY] = record[HISTORY] + 1
end

-- A finish, as its repeat is recognised.
local function fence_of(dispatch, owner, ending) return digits[dispatch] .. ':' .. ending .. ':' .. owner end

-- Drop a record and everything that is kept about it; its deduplication id is the caller's business.
local function bury(id, record)
  leave(id, record)
  unset('result', id)
  unset('error', id)
  unset('progress', id)
  unset('payload', id)
  for i = 0, math.min(record[HISTORY], MAX_HISTORY) - 1 do unset('history', i .. ':' .. id) end
  records[id] = false
end

local function bury_under_tombstone(id, record, now)
  bury(id, record)
  put('tombs', id, now)
  if record[LAST_FINISH] then set('buried', id, record[LAST_FINISH]) end
end

-- Deduplication -------------------------------------------------------------------------------------------------------

local holders = {}

-- {id =, till =} or false. `till` nil: until the holder is final.
local function holder_of(deduplication)
  if holders[deduplication] == nil then
    local value = redis.call('HGET', prefix .. 'deduplication', deduplication)
    if value then
      local colon = string.find(value, ':', 1, true)
      holders[deduplication] = {id = string.sub(value, colon + 1), till = tonumber(string.sub(value, 1, colon - 1))}
    else
      holders[deduplication] = false
    end
  end
  return holders[deduplication]
end

local function hold(deduplication, id, till)
  holders[deduplication] = {id = id, till = till}
  set('deduplication', deduplication, (till and digits[till] or '') .. ':' .. id)
  if till then put('windows', deduplication, till) else drop('windows', deduplication) end
end

local function free(deduplication)
  holders[deduplication] = false
  unset('deduplication', deduplication)
  drop('windows', deduplication)
end

-- `whatever` also ends a window that has not passed.
local function free_of(id, record, whatever)
  if record[DEDUPLICATION] then
    local holder = holder_of(record[DEDUPLICATION])
    if holder and holder.id == id and (whatever or not holder.till) then free(record[DEDUPLICATION]) end
  end
end

-- Final states --------------------------------------------------------------------------------------------------------

local ended = {}
local grown = {} -- group -> how many of it are kept, or false for all

-- `keep` is {age, count, group}.
local function to_final(id, record, state, now, keep)
  leave(id, record)
  free_of(id, record, false)
  ended[#ended + 1] = id
  record[STATE] = state
  record[FINISHED_AT] = now
  record[GROUP] = keep[3]
  local group = state .. ':' .. keep[3]
  grown[group] = keep[2] or false
  put('final:' .. state, id, now)
  put('kept:' .. group, id, now)
  if keep[1] then put('expire', id, now + keep[1]) end
end

-- Prune the oldest of a group beyond `count`, up to `budget`; the number pruned. What is left over is noted for the
-- script `prune`. Records that ended in this very call stay, so that its repeat finds them.
local function trim(group, count, budget, now)
  local index, pruned, excess = 'kept:' .. group, 0, 0
  if count then
    excess = redis.call('ZCARD', prefix .. index) - count
    for _ in pairs(puts[index] or {}) do excess = excess + 1 end
    for _ in pairs(drops[index] or {}) do excess = excess - 1 end
  end
  if excess > 0 and budget > 0 then
    local old = redis.call('ZRANGE', prefix .. index, 0, math.min(excess, budget) - 1)
    for _, id in ipairs(load_indexed(index, old)) do
      if not changed[id] then
        bury_under_tombstone(id, records[id], now)
        pruned = pruned + 1
      end
    end
  end
  if excess > pruned then set('surplus', group, count) else unset('surplus', group) end
  return pruned
end

local function trim_grown(budget, now)
  for group, count in pairs(grown) do budget = budget - trim(group, count, budget, now) end
end

-- The last act ----------------------------------------------------------------------------------------------------------

local function pack_records()
  for id in pairs(changed) do
    if records[id] then set('record', id, cmsgpack.pack(records[id])) else unset('record', id) end
  end
end

-- Frees before it takes: Redis refuses the first write of a script when memory is out, and lets it finish after one that
-- frees. So runs can end, and be claimed, on a full server.
local function flush()
  pack_records()
  send_drops()
  send_unsets()
  send_sets()
  send_puts()
  if #ended > 0 then tell_ends(ended, sets['result'] or {}) end
end

-- Takes first, so that a full server refuses it as a whole.
local function flush_or_refuse()
  pack_records()
  send_sets()
  send_drops()
  send_unsets()
  send_puts()
  if #ended > 0 then tell_ends(ended, sets['result'] or {}) end
end

-- A write that changes nothing, and is refused where all writes are: the disk is full, too few replicas are there. A
-- counter then stands still though its owner lives, and must not be seen to. (A write first would let a full server
-- take those that follow: see `flush`.)
local function refuse_where_nobody_can_write() redis.call('HDEL', prefix .. 'infos', '') end

-- {record, payload, result, error, {history entry, ...}} for each id; nothing in place of a record that is not there.
local function describe(ids)
  local packed, payloads = read_fields('record', ids), read_fields('payload', ids)
  local results, errors = read_fields('result', ids), read_fields('error', ids)
  local answer = {}
  for i, id in ipairs(ids) do
    local history = {}
    if packed[i] then
      local total = cmsgpack.unpack(packed[i])[HISTORY]
      local fields = {}
      for n = math.max(0, total - MAX_HISTORY), total - 1 do fields[#fields + 1] = n % MAX_HISTORY .. ':' .. id end
      history = read_fields('history', fields)
    end
    answer[i] = {packed[i], payloads[i], results[i], errors[i], history}
  end
  return answer
end
