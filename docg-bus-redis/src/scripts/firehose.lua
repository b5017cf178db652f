-- Comes before the scripts that write to the firehose.
--
-- Its entries are numbered 1, 2, 3 ... after the moment, in microseconds, in which it began: readers
-- see what is missing, and that it began anew.
local function firehose(key, maxlen)
  local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
  local began, number
  if last then
    began, number = string.match(last[1], '^(%d+)-(%d+)$')
    number = tonumber(number)
  else
    local now = redis.call('TIME')
    began, number = string.format('%d%06d', now[1], now[2]), 0
  end
  return function(execution, seq, organization, event, stored)
    number = number + 1
    local entry = { 'execution', execution, 'seq', seq, 'organization', organization, 'event', event }
    if stored ~= '' then
      entry[9], entry[10] = 'stored_data', stored
    end
    redis.call('XADD', key, 'MAXLEN', '~', maxlen, string.format('%s-%d', began, number), unpack(entry))
  end
end
