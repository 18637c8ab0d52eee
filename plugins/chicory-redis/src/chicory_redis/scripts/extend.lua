-- Keep deliveries ours for one more lease, and say that this consumer lives.
-- KEYS: the queues of the deliveries, and those that this consumer has announced. ROWS: for each delivery: number of its queue,
--       level, entry, count.
-- Returns the numbers (from 0) of those that are not ours any more.
for _, base in ipairs(KEYS) do see(base) end
local lost = {}
for i = 1, #ROWS, 4 do
  local key, entry = stream(KEYS[ROWS[i]], ROWS[i + 1]), ROWS[i + 2]
  local held = redis.pcall('XPENDING', key, GROUP, entry, entry, 1)
  if not held.err and held[1] and held[1][2] == ME and held[1][4] == ROWS[i + 3] then
    redis.call('XCLAIM', key, GROUP, ME, 0, entry, 'JUSTID')
  else
    lost[#lost + 1] = (i - 1) / 4
  end
end
return lost
