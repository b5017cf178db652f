-- Notes that an execution's events need not be announced again.
--
-- KEYS: what holds the seq of its last event in the firehose.
-- ARGV: the seq of the last one, seconds for which it is kept.
if tonumber(ARGV[1]) > tonumber(redis.call('GET', KEYS[1]) or 0) then
  redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
end
