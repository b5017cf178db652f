-- Appends those of an execution's events to its stream that are new to it.
--
-- KEYS: the stream.
-- ARGV: events kept, seconds for which they are; then of each event: seq, event.
for i = 3, #ARGV, 2 do
  local added = redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], ARGV[i] .. '-0', 'event', ARGV[i + 1])
  if type(added) == 'table' and added.err and not string.find(added.err, 'equal or smaller', 1, true) then
    return added
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
