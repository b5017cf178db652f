-- Appends those of an execution's events to its stream that are new to it. Answers with its head if
-- one does not follow, else with nil.
--
-- KEYS: the stream.
-- ARGV: events kept, seconds for which they are, 1 if an empty stream may begin with any event; then
-- of each event: seq, event.
local there = stream(KEYS[1], ARGV[1])
if there.head == 0 and ARGV[3] == '1' then
  there.head = tonumber(ARGV[4]) - 1
end
local behind = false
for i = 4, #ARGV, 2 do
  local seq = ARGV[i]
  if tonumber(seq) == there.head + 1 then
    there.append(seq, ARGV[i + 1])
  elseif tonumber(seq) > there.head then
    behind = there.head
    break
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return behind
