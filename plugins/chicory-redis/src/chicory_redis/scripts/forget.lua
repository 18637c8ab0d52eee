-- Forget records, except those whose message still waits or runs.
-- KEYS: none. ROWS: the ids.
-- Returns how many were forgotten.
local count = 0
for _, id in ipairs(ROWS) do
  local old = head_of(id)
  if old and old.flag ~= 'M' then
    redis.call('DEL', RP .. ':r:' .. id)
    redis.call('HDEL', RP .. ':held', id)
    redis.call('PUBLISH', RP .. ':done:' .. id, '')
    count = count + 1
  end
end
return count
