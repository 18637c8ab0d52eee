-- Count a queue, without looking at its messages.
-- KEYS: the queue.
-- Returns ready, delayed, running, age of the first ready message in ms (-1: none).
local base, ready_count, running, oldest = KEYS[1], 0, 0, -1
promote(base)
for level = 0, TOP do
  local key = stream(base, level)
  local groups = redis.pcall('XINFO', 'GROUPS', key)
  if not groups.err then
    local held, last = 0, '0-0'
    for _, group in ipairs(groups) do
      local facts = {}
      for n = 1, #group, 2 do facts[group[n]] = group[n + 1] end
      if facts.name == GROUP then held, last = facts.pending, facts['last-delivered-id'] end
    end
    local length = redis.call('XLEN', key)
    running = running + held
    ready_count = ready_count + math.max(0, length - held)
    if length > held then
      local first = redis.call('XRANGE', key, '(' .. last, '+', 'COUNT', 1)[1]
      if first then oldest = math.max(oldest, NOW - tonumber(string.match(first[1], '^(%d+)'))) end
    end
  end
end
return {ready_count, redis.call('ZCARD', base .. ':d'), running, oldest}
