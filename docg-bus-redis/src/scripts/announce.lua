-- Appends those events to the firehose that are new to it.
--
-- KEYS: the firehose, then what holds the seq of each execution's last event in it.
-- ARGV: events kept, seconds for which they are; then of each event: the number of its execution's
-- key in KEYS, execution, seq, organization if it is for lists (else empty), event.
local announce = firehose(KEYS[1], ARGV[1])
local heads = {}
for i = 3, #ARGV, 5 do
  local key, execution, seq, organization, event = unpack(ARGV, i, i + 4)
  key = tonumber(key)
  heads[key] = heads[key] or tonumber(redis.call('GET', KEYS[key]) or 0)
  if tonumber(seq) > heads[key] then
    announce(execution, seq, organization, event)
    heads[key] = tonumber(seq)
  end
end
for key, head in pairs(heads) do
  redis.call('SET', KEYS[key], string.format('%d', head), 'EX', ARGV[2])
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
