-- Claim what is ready, from the first queue that has some, then the next; within a queue by priority.
-- ARGV: 7 how many, 8 "1" to take over expired leases too, 9 lease in ms where none is recorded, then the queues.
-- Returns: ms until the next delayed message is due (-1: none), then for each message: queue, lease in ms, level, entry, count,
--          fields.
local left, sweeps = tonumber(ARGV[7]), ARGV[8] == '1'
local found, soonest = {-1}, -1

local function take(queue, lease, level, entries, count)
  for _, entry in ipairs(entries) do
    local n = count or tonumber(redis.call('XPENDING', stream(queue, level), GROUP, entry[1], entry[1], 1)[1][4])
    found[#found + 1] = {queue, lease, level, entry[1], n, entry[2]}
    left = left - 1
  end
end

local function take_over(queue, lease, level)
  local key, cursor = stream(queue, level), '0-0'
  repeat
    local answer = redis.pcall('XAUTOCLAIM', key, GROUP, ME, lease, cursor, 'COUNT', math.min(left, 100))
    if answer.err then return end
    cursor = answer[1]
    local alive = {}
    for _, entry in ipairs(answer[2]) do
      if entry and entry[2] then alive[#alive + 1] = entry end
    end
    take(queue, lease, level, alive, nil)
  until cursor == '0-0' or left <= 0
end

local function read(queue, lease, level)
  local key = stream(queue, level)
  local answer = redis.pcall('XREADGROUP', 'GROUP', GROUP, ME, 'COUNT', left, 'STREAMS', key, '>')
  if answer and answer.err then
    ensure(queue)
    answer = redis.call('XREADGROUP', 'GROUP', GROUP, ME, 'COUNT', left, 'STREAMS', key, '>')
  end
  if answer then take(queue, lease, level, answer[1][2], 1) end
end

if redis.call('ZSCORE', P .. ':seen', ME) then redis.call('ZADD', P .. ':seen', NOW, ME) end
for i = 10, #ARGV do
  local queue = ARGV[i]
  local lease = redis.call('HGET', of(queue, 'q'), 'lease') or ARGV[9]
  local due = promote(queue)
  if due >= 0 and (soonest < 0 or due < soonest) then soonest = due end
  for level = TOP, 0, -1 do
    if left > 0 and sweeps then take_over(queue, lease, level) end
    if left > 0 then read(queue, lease, level) end
  end
end
if soonest >= 0 then found[1] = math.max(0, soonest - NOW) end
return found
