-- Appends events to their executions' streams, and those that are new to the firehose.
--
-- KEYS: the firehose, then the executions' streams.
-- ARGV: events kept in an execution's stream, in the firehose, seconds for which both are kept; then
-- of each event: the number of its stream in KEYS, execution, seq, organization if it is for lists
-- (else empty), event.
local announce = firehose(KEYS[1], ARGV[2])
for i = 4, #ARGV, 5 do
  local stream, execution, seq, organization, event = unpack(ARGV, i, i + 4)
  local added = redis.pcall('XADD', KEYS[tonumber(stream)], 'MAXLEN', '~', ARGV[1], seq .. '-0', 'event', event)
  if type(added) ~= 'table' or not added.err then
    announce(execution, seq, organization, event)
  elseif not string.find(added.err, 'equal or smaller', 1, true) then
    return added
  end
end
for _, key in ipairs(KEYS) do
  redis.call('EXPIRE', key, ARGV[3])
end
