-- Appends those events to the firehose that are new to it. Answers with the number of the first key
-- that an event does not follow, and with its head; nil for none.
--
-- KEYS: the firehose, then what holds the seq of each execution's last event in it.
-- ARGV: events kept, seconds for which they are; then of each event: the number of its execution's
-- key in KEYS, execution, seq, organization if it is for lists (else empty), event, its stored data
-- where they differ (else empty).
local announce = firehose(KEYS[1], ARGV[1])
local heads, behind = {}, false
for i = 3, #ARGV, 6 do
  local key, execution, seq, organization, event, stored = unpack(ARGV, i, i + 5)
  key = tonumber(key)
  heads[key] = heads[key] or tonumber(redis.call('GET', KEYS[key]) or 0)
  if tonumber(seq) == heads[key] + 1 then
    announce(execution, seq, organization, event, stored)
    heads[key] = tonumber(seq)
  elseif tonumber(seq) > heads[key] then
    behind = behind or { key, heads[key] }
  end
end
for key, head in pairs(heads) do
  if head > 0 then
    redis.call('SET', KEYS[key], string.format('%d', head), 'EX', ARGV[2])
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return behind
