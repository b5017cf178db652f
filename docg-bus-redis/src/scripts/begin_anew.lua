-- Begins the firehose anew, unless it has begun within some time: whoever reads there is then told
-- that something may be missing. The number 1 is left out, so that this is so in an empty one too.
-- Where it is there, somebody may have read since it was empty, and was told nothing.
--
-- KEYS: the firehose.
-- ARGV: the time in microseconds, seconds for which it is kept, what the data's history is called.
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local began = last and string.match(last[1], '^%d+') or '0'
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local first = began .. '-1'
local has_first = #redis.call('XRANGE', KEYS[1], first, first) > 0
if tonumber(began) < now - (has_first and 0 or ARGV[1]) then
  redis.call('XADD', KEYS[1], string.format('%d-2', now), 'history', ARGV[3])
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
