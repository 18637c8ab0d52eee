-- What the scripts share; it stands before each of them.
-- KEYS: the base key of each queue that a call is about: P:{name}, or P:{name}.dlq for the dead letters of that queue, which
--       stand under its hash tag. All keys of a queue, and where its ids are, so share one slot.
-- ARGV: 1 prefix of all keys (P), 2 consumer group, 3 consumer, 4 milliseconds for which an ended id is remembered,
--       5 database of the broker, 6 where records are: "" or "<database> <prefix>", 7 a MessagePack array, the script's own.
-- Keys: of a queue, behind its base: :s:<level> stream, :bell stream, :d zset id -> due ms, :q hash (lease), :c zset consumer ->
--       ms of its last sign of life; behind its hash tag: :i:<id> where a message is.
-- :i:<id> is "hop\nbase key\nkind\nlevel\nentry\ndue\nrecords\nbody": kind s in a stream (whose entry has the body), d delayed,
--       x ended (remembered for a while). due is in microseconds as it came, or "-".
local P, GROUP, ME, WINDOW, DB, RECORDS = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local ROWS = ARGV[7] and cmsgpack.unpack(ARGV[7])
local TOP = 9
local clock = redis.call('TIME')
local NOW = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function stream(base, level) return base .. ':s:' .. level end

local indices = {}
local function index(base, id)
  local begin = indices[base]
  if not begin then
    begin = (string.sub(base, -5) == '}.dlq' and string.sub(base, 1, -5) or base) .. ':i:'
    indices[base] = begin
  end
  return begin .. id
end

local function find(base, id)
  local value = redis.call('GET', index(base, id))
  if not value then return nil end
  local hop, where, kind, level, entry, due, records, body =
    string.match(value, '^(%d+)\n([^\n]*)\n(%a)\n(%d+)\n([^\n]*)\n([^\n]*)\n([^\n]*)\n(.*)$')
  return {hop = tonumber(hop), base = where, kind = kind, level = level, entry = entry, due = due, records = records, body = body}
end

local function location(hop, base, kind, level, entry, due, records, body)
  return hop .. '\n' .. base .. '\n' .. kind .. '\n' .. level .. '\n' .. entry .. '\n' .. due .. '\n' .. records .. '\n' .. body
end

-- The numbers of the queues that are new here; the caller puts their names in the list of all.
local function unheard_of()
  local new = {}
  for number, base in ipairs(KEYS) do
    if redis.call('HSETNX', base .. ':q', 'known', 1) == 1 then new[#new + 1] = number end
  end
  return new
end

local function see(base)
  if redis.call('ZSCORE', base .. ':c', ME) then redis.call('ZADD', base .. ':c', NOW, ME) end
end

-- The groups of a queue; a group that is there is left as it is.
local function ensure(base)
  for level = 0, TOP do redis.pcall('XGROUP', 'CREATE', stream(base, level), GROUP, '0', 'MKSTREAM') end
  redis.pcall('XGROUP', 'CREATE', base .. ':bell', GROUP, '0', 'MKSTREAM')
end

local function add(id, base, level, hop, due, records, body)
  return redis.call('XADD', stream(base, level), '*', 'i', id, 'h', hop, 'd', due, 'r', records, 'b', body)
end

local function ready(id, base, level, hop, due, records, body)
  local entry = add(id, base, level, hop, due, records, body)
  redis.call('SET', index(base, id), location(hop, base, 's', level, entry, due, records, ''))
end

-- Make this the message of its id, wherever the id was before.
local function place(id, base, level, hop, due, score, records, body)
  if score <= NOW then return ready(id, base, level, hop, due, records, body) end
  redis.call('ZADD', base .. ':d', score, id)
  redis.call('SET', index(base, id), location(hop, base, 'd', level, '-', due, records, body))
  if redis.call('ZRANGE', base .. ':d', 0, 0)[1] == id then
    redis.call('XADD', base .. ':bell', 'MAXLEN', 16, '*', 'x', '1')
  end
end

-- Take a message that waits out of its queue; false if a consumer has it.
local function take_out(id, at)
  if at.kind == 'd' then
    redis.call('ZREM', at.base .. ':d', id)
    return true
  end
  local key = stream(at.base, at.level)
  local held = redis.pcall('XPENDING', key, GROUP, at.entry, at.entry, 1)
  if not held.err and held[1] then return false end
  redis.call('XDEL', key, at.entry)
  return true
end

local function ended(id, hop, base)
  redis.call('SET', index(base, id), location(hop, base, 'x', 0, '-', '-', '', ''), 'PX', WINDOW)
end

-- Move what is due to its stream, in bounded batches; the score of the next one, or -1.
local function promote(base)
  local key = base .. ':d'
  for _, id in ipairs(redis.call('ZRANGE', key, '-inf', NOW, 'BYSCORE', 'LIMIT', 0, 500)) do
    local at = find(base, id)
    if at and at.kind == 'd' and at.base == base then
      ready(id, base, at.level, at.hop, at.due, at.records, at.body)
    end
    redis.call('ZREM', key, id)
  end
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return first[2] and tonumber(first[2]) or -1
end

-- Records: RP:r:<id> is "flag\nstate\nhop\ncount\nholder\nbody"; flag T ended, M its message is in this server, N neither.
local RDB, RP = string.match(RECORDS, '^(%d+) (.*)$')

local function in_records(fn, ...)
  if RDB == DB then return fn(...) end
  redis.call('SELECT', RDB)
  local answer = fn(...)
  redis.call('SELECT', DB)
  return answer
end

local function pending_value(hop) return 'M\nPENDING\n' .. hop .. '\n0\n\n' end

local function parsed(head)
  local flag, state, hop, count, holder = string.match(head, '^(%a)\n([^\n]*)\n(%d+)\n(%d+)\n([^\n]*)\n')
  return {flag = flag, state = state, hop = tonumber(hop), count = tonumber(count), holder = holder}
end

local function head_of(id)
  local head = redis.call('GETRANGE', RP .. ':r:' .. id, 0, 400)
  return head ~= '' and parsed(head) or nil
end

local function may_follow(old, state, hop, count)
  if old.flag == 'T' then return state == 'PENDING' and hop > old.hop end
  return hop > old.hop or (hop == old.hop and count >= old.count)
end

-- What is known of records, by key, before this call has changed them.
local heads = {}

-- Learn the heads of these records at once; *keys* are not too many for one command.
local function learn(keys)
  for number, value in ipairs(redis.call('MGET', unpack(keys))) do heads[keys[number]] = value or '' end
end

local function keep(id, flag, state, hop, count, holder, ttl, body)
  local key = RP .. ':r:' .. id
  local head, old = heads[key] or redis.call('GETRANGE', key, 0, 400), nil
  heads[key] = nil  -- what is known of it is so no longer
  if head ~= '' and head ~= pending_value(hop) then  -- which any may follow: so it is with nearly all
    old = parsed(head)
    if not may_follow(old, state, hop, count) then return 0 end
  end
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
  if RDB then in_records(keep, id, 'M', 'PENDING', hop, 0, '', '-', '') end
end

local function add_pending(id, hop)
  local record = RP .. ':r:' .. id
  heads[record] = nil
  return redis.call('SET', record, pending_value(hop), 'NX')
end

-- Whether a ready message is of a new id, as nearly all are: then it is published. It is added before anybody has looked, and
-- is gone again before anybody else can see it if its id turns out to be known: two commands, or three, instead of five.
local function publish_new(id, base, level, hop, due, body)
  local entry = add(id, base, level, hop, due, RECORDS, body)
  local at = location(hop, base, 's', level, entry, due, RECORDS, '')
  if RDB == DB then
    local record = RP .. ':r:' .. id
    heads[record] = nil
    if redis.call('MSETNX', index(base, id), at, record, pending_value(hop)) == 1 then return true end
  elseif redis.call('SET', index(base, id), at, 'NX') then
    if not RDB or in_records(add_pending, id, hop) then return true end
    redis.call('DEL', index(base, id))
  end
  redis.call('XDEL', stream(base, level), entry)
  return false
end

-- Publish unless it is a repeat.
local function publish(id, base, level, hop, due, score, body)
  if score <= NOW and publish_new(id, base, level, hop, due, body) then return end
  local at = find(base, id)
  if at and at.hop >= hop then return end
  if RDB then
    local old = in_records(head_of, id)
    if old and old.hop >= hop then return end
  end
  if at and at.kind ~= 'x' then take_out(id, at) end
  place(id, base, level, hop, due, score, RECORDS, body)
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
