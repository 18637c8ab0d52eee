-- Forget consumers of queues: this one, or those that were not seen for a while. What they hold comes again.
-- ARGV: 7 ms without a sign of life ("-": this consumer), then the queues.
-- Returns how many were forgotten.
local count = 0

local function drop(queue, consumer)
  count = count + redis.call('SREM', of(queue, 'c'), consumer)
  for level = 0, TOP do
    local key = stream(queue, level)
    local held = redis.pcall('XPENDING', key, GROUP, '-', '+', 1, consumer)
    if not held.err and not held[1] then redis.pcall('XGROUP', 'DELCONSUMER', key, GROUP, consumer) end
  end
  redis.pcall('XGROUP', 'DELCONSUMER', of(queue, 'bell'), GROUP, consumer)
end

for i = 8, #ARGV do
  local queue = ARGV[i]
  if ARGV[7] == '-' then
    drop(queue, ME)
  else
    for _, other in ipairs(redis.call('SMEMBERS', of(queue, 'c'))) do
      local seen = redis.call('ZSCORE', P .. ':seen', other)
      if not seen or NOW - tonumber(seen) > tonumber(ARGV[7]) then
        drop(queue, other)
      end
    end
  end
end
if ARGV[7] == '-' then redis.call('ZREM', P .. ':seen', ME) end
redis.call('ZREMRANGEBYSCORE', P .. ':seen', '-inf', NOW - 86400000)
return count
