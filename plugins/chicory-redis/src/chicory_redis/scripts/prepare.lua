-- Announce this consumer.
-- KEYS: the queues. ROWS: the lease that it asks for in ms.
-- Returns the lease in force for each queue, in ms.
local leases = {}

local function has_others(base, lease)
  for _, other in ipairs(redis.call('ZRANGE', base .. ':c', NOW - 2 * lease, '+inf', 'BYSCORE', 'LIMIT', 0, 2)) do
    if other ~= ME then return true end
  end
  return false
end

for number, base in ipairs(KEYS) do
  local lease = tonumber(redis.call('HGET', base .. ':q', 'lease') or ROWS[1])
  if lease ~= ROWS[1] and not has_others(base, lease) then lease = ROWS[1] end
  redis.call('HSET', base .. ':q', 'lease', lease)
  redis.call('ZADD', base .. ':c', NOW, ME)
  ensure(base)
  leases[number] = lease
end
return leases
