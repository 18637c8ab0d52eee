-- Remove messages that no consumer holds, and their records; at most 1,000 of each kind in one call.
-- KEYS: the queue.
-- Returns how many went; ask again until it is 0.
local base, gone = KEYS[1], 0

local function remove(id, hop, records)
  ended(id, hop, base)
  forget(id, records)
  gone = gone + 1
end

for _, id in ipairs(redis.call('ZRANGE', base .. ':d', 0, 999)) do
  local at = find(base, id)
  redis.call('ZREM', base .. ':d', id)
  if at and at.kind == 'd' and at.base == base then remove(id, at.hop, at.records) end
end
for level = 0, TOP do
  local key, last = stream(base, level), '0-0'
  local groups = redis.pcall('XINFO', 'GROUPS', key)
  for _, group in ipairs(groups.err and {} or groups) do
    local facts = {}
    for n = 1, #group, 2 do facts[group[n]] = group[n + 1] end
    if facts.name == GROUP then last = facts['last-delivered-id'] end
  end
  for _, entry in ipairs(redis.pcall('XRANGE', key, '(' .. last, '+', 'COUNT', 1000)) do
    if gone < 1000 then
      redis.call('XDEL', key, entry[1])
      local fields = entry[2]
      remove(fields[2], fields[4], fields[8])
    end
  end
end
return gone
