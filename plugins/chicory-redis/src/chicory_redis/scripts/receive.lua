-- Claim what is ready, from the first queue that has some, then the next; within a queue by priority.
-- KEYS: the queues. ROWS: how many, 1 to take over expired leases too (else 0), lease in ms where none is recorded.
-- Returns ms until the next delayed message is due (-1: none), the lease of each queue in ms, then for each message: number of
--         its queue, level, entry, count, id, hop, due, body.
local left, sweeps, default = ROWS[1], ROWS[2] == 1, ROWS[3]
local found, soonest = {-1}, -1

local function show(number, level, entry, fields, count)
  local n = #found
  found[n + 1], found[n + 2], found[n + 3], found[n + 4] = number, level, entry, count
  found[n + 5], found[n + 6], found[n + 7], found[n + 8] = fields[2], fields[4], fields[6], fields[10]
  left = left - 1
end

local function take_over(number, lease, level)
  local key, cursor = stream(KEYS[number], level), '0-0'
  repeat
    local answer = redis.pcall('XAUTOCLAIM', key, GROUP, ME, lease, cursor, 'COUNT', math.min(left, 100))
    if answer.err then return end
    cursor = answer[1]
    for _, entry in ipairs(answer[2]) do
      if entry and entry[2] then
        local held = redis.call('XPENDING', key, GROUP, entry[1], entry[1], 1)
        show(number, level, entry[1], entry[2], held[1][4])
      end
    end
  until cursor == '0-0' or left <= 0
end

local function read(number, level)
  local key = stream(KEYS[number], level)
  local answer = redis.pcall('XREADGROUP', 'GROUP', GROUP, ME, 'COUNT', left, 'STREAMS', key, '>')
  if answer and answer.err then
    ensure(KEYS[number])
    answer = redis.call('XREADGROUP', 'GROUP', GROUP, ME, 'COUNT', left, 'STREAMS', key, '>')
  end
  if answer then
    for _, entry in ipairs(answer[1][2]) do show(number, level, entry[1], entry[2], 1) end
  end
end

for number, base in ipairs(KEYS) do
  see(base)
  found[number + 1] = tonumber(redis.call('HGET', base .. ':q', 'lease') or default)
end
for number, base in ipairs(KEYS) do
  local due = promote(base)
  if due >= 0 and (soonest < 0 or due < soonest) then soonest = due end
  for level = TOP, 0, -1 do
    if left > 0 and sweeps then take_over(number, found[number + 1], level) end
    if left > 0 then read(number, level) end
  end
end
if soonest >= 0 then found[1] = math.max(0, soonest - NOW) end
return found
