-- Comes before the scripts that write to executions' streams.
--
-- The entries' ids are the events' numbers, so the last one tells what a stream has: `head`, 0 for
-- nothing. An event that does not follow is not for it to take.
local function stream(key, maxlen)
  local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
  local this = { head = last and tonumber(string.match(last[1], '^%d+')) or 0 }
  function this.append(seq, event)
    redis.call('XADD', key, 'MAXLEN', '~', maxlen, seq .. '-0', 'event', event)
    this.head = tonumber(seq)
  end
  return this
end
