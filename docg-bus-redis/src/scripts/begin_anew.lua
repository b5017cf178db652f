-- Begins the firehose anew, unless it has begun within some time: whoever has read in it before is
-- then told that something may be missing. An empty one begins anew by itself.
--
-- KEYS: the firehose.
-- ARGV: the time in microseconds, what the data's history is called now.
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if last then
  local began = tonumber(string.match(last[1], '^%d+'))
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  if began < now - ARGV[1] then
    redis.call('XADD', KEYS[1], string.format('%d-1', now), 'history', ARGV[2])
  end
end
