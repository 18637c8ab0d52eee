-- What the scripts share; it stands before each of them.
-- ARGV: 1 prefix of the broker's keys, 2 consumer group, 3 consumer, 4 milliseconds for which an ended id is remembered,
--       5 database of the broker, 6 where records are: "" or "<database> <prefix>"; what follows is the script's own.
-- Keys: P:queues set; P:seen zset consumer -> ms; P:i:<id> where a message is; of a queue, with its name as the hash tag:
--       P:{Q}:s:<level> stream, :bell stream, :d zset id -> due ms, :q hash (lease), :c set of consumers.
-- P:i:<id> is "hop\nqueue\nkind\nlevel\nentry\ndue\nrecords\nbody": kind s in a stream (whose entry has the body), d delayed,
--       x ended (remembered for a while). due is in microseconds as it came, or "-".
local P, GROUP, ME, WINDOW, DB, RECORDS = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local TOP = 9
local clock = redis.call('TIME')
local NOW = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function of(queue, rest) return P .. ':{' .. queue .. '}:' .. rest end
local function stream(queue, level) return P .. ':{' .. queue .. '}:s:' .. level end

local function find(id)
  local value = redis.call('GET', P .. ':i:' .. id)
  if not value then return nil end
  local hop, queue, kind, level, entry, due, records, body =
    string.match(value, '^(%d+)\n([^\n]*)\n(%a)\n(%d+)\n([^\n]*)\n([^\n]*)\n([^\n]*)\n(.*)$')
  return {hop = tonumber(hop), queue = queue, kind = kind, level = level, entry = entry, due = due, records = records, body = body}
end

local function note(id, hop, queue, kind, level, entry, due, records, body)
  redis.call('SET', P .. ':i:' .. id,
    hop .. '\n' .. queue .. '\n' .. kind .. '\n' .. level .. '\n' .. entry .. '\n' .. due .. '\n' .. records .. '\n' .. body)
end

-- The groups of a queue; a group that is there is left as it is.
local function ensure(queue)
  for level = 0, TOP do redis.pcall('XGROUP', 'CREATE', stream(queue, level), GROUP, '0', 'MKSTREAM') end
  redis.pcall('XGROUP', 'CREATE', of(queue, 'bell'), GROUP, '0', 'MKSTREAM')
  redis.call('SADD', P .. ':queues', queue)
end

local known = {}
local function announce(queue)
  if not known[queue] then
    known[queue] = true
    redis.call('SADD', P .. ':queues', queue)
  end
end

local function ready(id, queue, level, hop, due, records, body)
  local entry = redis.call('XADD', stream(queue, level), '*', 'i', id, 'h', hop, 'd', due, 'r', records, 'b', body)
  note(id, hop, queue, 's', level, entry, due, records, '')
end

-- Make this the message of its id, wherever the id was before.
local function place(id, queue, level, hop, due, score, records, body)
  announce(queue)
  if tonumber(score) > NOW then
    redis.call('ZADD', of(queue, 'd'), score, id)
    note(id, hop, queue, 'd', level, '-', due, records, body)
    if redis.call('ZRANGE', of(queue, 'd'), 0, 0)[1] == id then
      redis.call('XADD', of(queue, 'bell'), 'MAXLEN', 16, '*', 'x', '1')
    end
  else
    ready(id, queue, level, hop, due, records, body)
  end
end

-- Take a message that waits out of its queue; false if a consumer has it.
local function take_out(id, at)
  if at.kind == 'd' then
    redis.call('ZREM', of(at.queue, 'd'), id)
    return true
  end
  local key = stream(at.queue, at.level)
  local held = redis.pcall('XPENDING', key, GROUP, at.entry, at.entry, 1)
  if not held.err and held[1] then return false end
  redis.call('XDEL', key, at.entry)
  return true
end

local function ended(id, hop, queue)
  redis.call('SET', P .. ':i:' .. id, hop .. '\n' .. queue .. '\nx\n0\n-\n-\n\n', 'PX', WINDOW)
end

-- Move what is due to its stream, in bounded batches; the score of the next one, or -1.
local function promote(queue)
  local key = of(queue, 'd')
  for _, id in ipairs(redis.call('ZRANGE', key, '-inf', NOW, 'BYSCORE', 'LIMIT', 0, 500)) do
    local at = find(id)
    if at and at.kind == 'd' and at.queue == queue then
      ready(id, queue, at.level, at.hop, at.due, at.records, at.body)
    end
    redis.call('ZREM', key, id)
  end
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return first[2] and tonumber(first[2]) or -1
end

-- Records: RP:r:<id> is "flag\nstate\nhop\ncount\nholder\nbody"; flag T ended, M its message is in this server, N neither.
local RDB, RP = string.match(RECORDS, '^(%d+) (.*)$')

local function in_records(fn)
  if RDB == DB then return fn() end
  redis.call('SELECT', RDB)
  local answer = fn()
  redis.call('SELECT', DB)
  return answer
end

local function head_of(id)
  local head = redis.call('GETRANGE', RP .. ':r:' .. id, 0, 400)
  if head == '' then return nil end
  local flag, state, hop, count, holder = string.match(head, '^(%a)\n([^\n]*)\n(%d+)\n(%d+)\n([^\n]*)\n')
  return {flag = flag, state = state, hop = tonumber(hop), count = tonumber(count), holder = holder}
end

local function may_follow(old, state, hop, count)
  if old.flag == 'T' then return state == 'PENDING' and hop > old.hop end
  return hop > old.hop or (hop == old.hop and count >= old.count)
end

local function keep(id, flag, state, hop, count, holder, ttl, body)
  local old = head_of(id)
  if old and not may_follow(old, state, tonumber(hop), tonumber(count)) then return 0 end
  local key = RP .. ':r:' .. id
  local value = flag .. '\n' .. state .. '\n' .. hop .. '\n' .. count .. '\n' .. holder .. '\n' .. body
  if ttl == '-' then redis.call('SET', key, value) else redis.call('SET', key, value, 'PX', ttl) end
  if holder ~= '' and flag ~= 'T' then
    redis.call('HSET', RP .. ':held', id, holder)
  elseif old and old.holder ~= '' then
    redis.call('HDEL', RP .. ':held', id)
  end
  if flag == 'T' then redis.call('PUBLISH', RP .. ':done:' .. id, value) end
  return 1
end

local function pending(id, hop)
  if RDB then in_records(function() return keep(id, 'M', 'PENDING', hop, 0, '', '-', '') end) end
end

-- Publish unless it is a repeat.
local function publish(id, queue, level, hop, due, score, body)
  local at = find(id)
  hop = tonumber(hop)
  if at and at.hop >= hop then return end
  if RDB then
    local old = in_records(function() return head_of(id) end)
    if old and old.hop >= hop then return end
  end
  if at and at.kind ~= 'x' then take_out(id, at) end
  place(id, queue, level, hop, due, score, RECORDS, body)
  pending(id, hop)
end

-- Drop the record of a message that is removed, wherever its records are.
local function forget(id, records)
  local db, prefix = string.match(records, '^(%d+) (.*)$')
  if not db then return end
  if db ~= DB then redis.call('SELECT', db) end
  redis.call('DEL', prefix .. ':r:' .. id)
  redis.call('PUBLISH', prefix .. ':done:' .. id, '')
  if db ~= DB then redis.call('SELECT', DB) end
end
