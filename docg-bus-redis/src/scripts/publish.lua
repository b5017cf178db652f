-- Appends events to their executions' streams, and those that are new to the firehose. Answers with
-- the number of the first stream that an event does not follow, and with its head; nil for none.
--
-- KEYS: the firehose, then the executions' streams.
-- ARGV: events kept in an execution's stream, in the firehose, seconds for which both are kept; then
-- of each event: the number of its stream in KEYS, execution, seq, organization if it is for lists
-- (else empty), event, its stored data where they differ (else empty).
local announce = firehose(KEYS[1], ARGV[2])
local streams, behind = {}, false
for i = 4, #ARGV, 6 do
  local key, execution, seq, organization, event, stored = unpack(ARGV, i, i + 5)
  key = tonumber(key)
  streams[key] = streams[key] or stream(KEYS[key], ARGV[1])
  local there = streams[key]
  if tonumber(seq) == there.head + 1 then
    there.append(seq, event)
    announce(execution, seq, organization, event, stored)
  elseif tonumber(seq) > there.head then
    behind = behind or { key, there.head }
  end
end
for _, key in ipairs(KEYS) do
  redis.call('EXPIRE', key, ARGV[3])
end
return behind
