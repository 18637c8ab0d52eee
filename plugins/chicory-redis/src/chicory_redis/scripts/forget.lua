-- Forget records, except those whose message still waits or runs.
-- ARGV from 7: the ids.
-- Returns how many were forgotten.
local count = 0
for i = 7, #ARGV do
  local old = head_of(ARGV[i])
  if old and old.flag ~= 'M' then
    redis.call('DEL', RP .. ':r:' .. ARGV[i])
    redis.call('HDEL', RP .. ':held', ARGV[i])
    redis.call('PUBLISH', RP .. ':done:' .. ARGV[i], '')
    count = count + 1
  end
end
return count
