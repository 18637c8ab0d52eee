-- Announce this consumer.
-- ARGV: 7 the lease it asks for in ms, then the queues.
-- Returns the lease in force for each queue, in ms.
local asked, leases = ARGV[7], {}

local function has_others(queue, lease)
  for _, other in ipairs(redis.call('SMEMBERS', of(queue, 'c'))) do
    if other ~= ME then
      local seen = redis.call('ZSCORE', P .. ':seen', other)
      if seen and NOW - tonumber(seen) <= 2 * tonumber(lease) then return true end
    end
  end
  return false
end

redis.call('ZADD', P .. ':seen', NOW, ME)
for i = 8, #ARGV do
  local queue = ARGV[i]
  local lease = redis.call('HGET', of(queue, 'q'), 'lease')
  if not lease or not has_others(queue, lease) then
    lease = asked
    redis.call('HSET', of(queue, 'q'), 'lease', lease)
  end
  redis.call('SADD', of(queue, 'c'), ME)
  ensure(queue)
  leases[#leases + 1] = lease
end
return leases
