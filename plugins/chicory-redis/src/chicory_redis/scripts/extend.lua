-- Keep deliveries ours for one more lease, and say that this consumer lives.
-- ARGV from 7, for each: queue, level, entry, count.
-- Returns the numbers (from 0) of those that are not ours any more.
if redis.call('ZSCORE', P .. ':seen', ME) then redis.call('ZADD', P .. ':seen', NOW, ME) end
local lost = {}
for i = 7, #ARGV, 4 do
  local key, entry = stream(ARGV[i], ARGV[i + 1]), ARGV[i + 2]
  local held = redis.pcall('XPENDING', key, GROUP, entry, entry, 1)
  if not held.err and held[1] and held[1][2] == ME and held[1][4] == tonumber(ARGV[i + 3]) then
    redis.call('XCLAIM', key, GROUP, ME, 0, entry, 'JUSTID')
  else
    lost[#lost + 1] = (i - 7) / 4
  end
end
return lost
