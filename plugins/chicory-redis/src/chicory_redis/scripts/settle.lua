-- End deliveries (or note something about them), each in one step with what follows it and its record.
-- ARGV from 7, for each: queue, level, entry, count, id, hop, "1" if it ends, number of messages that follow, "1" if there is
--       a record; then the messages as for publish; then the record: id, flag, state, hop, count, holder, ttl in ms or "-", body.
-- Returns for each: 1 done, 0 gone, -1 lost.
local answers, i = {}, 7

local function is_ours(queue, level, entry, count)
  local held = redis.pcall('XPENDING', stream(queue, level), GROUP, entry, entry, 1)
  return not held.err and held[1] and held[1][2] == ME and held[1][4] == count
end

local function follow(own, at)
  local id, queue, level, hop = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local due, score, body = ARGV[at + 4], ARGV[at + 5], ARGV[at + 6]
  if id ~= own then return publish(id, queue, level, hop, due, score, body) end
  place(id, queue, level, hop, due, score, RECORDS, body)
end

local function keep_at(at)
  return in_records(function()
    return keep(ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], ARGV[at + 6], ARGV[at + 7])
  end)
end

while i <= #ARGV do
  local queue, level, entry, count = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
  local id, hop, ends, follows, has_record = ARGV[i + 4], ARGV[i + 5], ARGV[i + 6] == '1', tonumber(ARGV[i + 7]), ARGV[i + 8] == '1'
  local first = i + 9
  local record = first + 7 * follows
  i = record + (has_record and 8 or 0)
  if is_ours(queue, level, entry, count) then
    if ends then
      local key = stream(queue, level)
      redis.call('XACK', key, GROUP, entry)
      redis.call('XDEL', key, entry)
      local goes_on = false
      for n = 0, follows - 1 do
        follow(id, first + 7 * n)
        if ARGV[first + 7 * n] == id then
          goes_on = true
          if not has_record then pending(id, ARGV[first + 7 * n + 3]) end
        end
      end
      if not goes_on then
        if RDB and has_record and ARGV[record + 1] == 'T' then redis.call('DEL', P .. ':i:' .. id) else ended(id, hop, queue) end
      end
    end
    if has_record and RDB then keep_at(record) end
    answers[#answers + 1] = 1
  else
    local at = find(id)
    answers[#answers + 1] = (at and at.kind ~= 'x' and at.hop == tonumber(hop)) and -1 or 0
  end
end
return answers
