-- {now, {{id, dispatch}, ...}}
local now, sent = input[1], input[2]
load_first_of(sent)
local priorities = {}
for _, ticket in ipairs(sent) do
  local id = ticket[1]
  local record = records[id]
  if record and record[OUTBOX] == 'due' and record[DISPATCH] == ticket[2] then
    drop('outbox', id)
    put('sent:' .. record[PRIORITY], id, now)
    record[OUTBOX] = 'sent'
    record[SENT_AT] = now
    changed[id] = true
    priorities[record[PRIORITY]] = true
  end
end
-- `marks` also names the priorities that `sent` has an index for; without a claim the mark lies before every ticket.
local known = redis.call('HKEYS', prefix .. 'marks')
for _, priority in ipairs(known) do priorities[tonumber(priority)] = nil end
for priority in pairs(priorities) do set('marks', priority, 0) end
flush()
return 1
