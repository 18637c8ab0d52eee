-- Forget consumers of queues: this one, or those that were not seen for a while. What they hold comes again.
-- KEYS: the queues. ROWS: ms without a sign of life, or -1 for this consumer.
-- Returns how many were forgotten.
-- A consumer is only taken out of a group when it holds nothing, for what it holds would go with it.
local stale, count = ROWS[1], 0

local function consumers(key)
  local answer, found = redis.pcall('XINFO', 'CONSUMERS', key, GROUP), {}
  for _, consumer in ipairs(answer.err and {} or answer) do
    local facts = {}
    for n = 1, #consumer, 2 do facts[consumer[n]] = consumer[n + 1] end
    found[#found + 1] = facts
  end
  return found
end

local function sweep(base, key)
  for _, consumer in ipairs(consumers(key)) do
    local is_known = redis.call('ZSCORE', base .. ':c', consumer.name)
    local is_over = consumer.name == ME or (stale >= 0 and consumer.idle > stale)
    if consumer.pending == 0 and not is_known and is_over then redis.call('XGROUP', 'DELCONSUMER', key, GROUP, consumer.name) end
  end
end

for _, base in ipairs(KEYS) do
  if stale < 0 then
    count = count + redis.call('ZREM', base .. ':c', ME)
  else
    see(base)  -- who cleans up lives
    count = count + redis.call('ZREMRANGEBYSCORE', base .. ':c', '-inf', '(' .. NOW - stale)
  end
  for level = 0, TOP do sweep(base, stream(base, level)) end
  sweep(base, base .. ':bell')
end
return count
