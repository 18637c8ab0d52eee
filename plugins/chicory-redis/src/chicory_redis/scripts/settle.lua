-- End deliveries (or note something about them), each in one step with what follows it and its record.
-- KEYS: the queues of the deliveries, and of what follows. ROWS: for each: number of its queue, level, entry, count, id, hop, 1 if
--       it ends (else 0), how many messages follow, 1 if there is a record (else 0); then the messages as for publish; then the
--       record: id, flag, state, hop, count, holder, ttl in ms or "-", body.
-- Returns for each: 1 done, 0 gone, -1 lost; then the numbers of the queues that this server has not heard of.
local answers, over, acknowledged, forgotten, counts = {}, {}, {}, {}, {}

-- What this consumer holds of a stream, by entry: asked for once, where so many end that it costs less than to ask for each.
local function look(key, number)
  local found, held = {}, redis.pcall('XPENDING', key, GROUP, '-', '+', 3 * number + 50, ME)
  if not held.err then
    for _, row in ipairs(held) do found[row[1]] = row[4] end
  end
  counts[key] = found
end

local function is_ours(key, entry, count)
  local known = counts[key] and counts[key][entry]
  if known then return known == count end
  local held = redis.pcall('XPENDING', key, GROUP, entry, entry, 1)
  return not held.err and held[1] and held[1][2] == ME and held[1][4] == count
end

local function judge(row)
  local key, entry, id = stream(KEYS[ROWS[row]], ROWS[row + 1]), ROWS[row + 2], ROWS[row + 4]
  local mark = key .. '\n' .. entry
  if not over[mark] and is_ours(key, entry, ROWS[row + 3]) then
    if ROWS[row + 6] == 1 then
      over[mark] = true
      acknowledged[key] = acknowledged[key] or {}
      table.insert(acknowledged[key], entry)
    end
    return 1
  end
  local at = find(KEYS[ROWS[row]], id)
  return (not over[mark] and at and at.kind ~= 'x' and at.hop == ROWS[row + 5]) and -1 or 0
end

local function follow(own, row)
  local id, base, level, hop = ROWS[row], KEYS[ROWS[row + 1]], ROWS[row + 2], ROWS[row + 3]
  local due, score, body = ROWS[row + 4], ROWS[row + 5], ROWS[row + 6]
  if id ~= own then return publish(id, base, level, hop, due, score, body) end
  place(id, base, level, hop, due, score, RECORDS, body)
end

local function finish(row, follows, record)
  local base, id, goes_on = KEYS[ROWS[row]], ROWS[row + 4], false
  for at = row + 9, row + 2 + 7 * follows, 7 do
    follow(id, at)
    if ROWS[at] == id then
      goes_on = true
      if index(KEYS[ROWS[at + 1]], id) ~= index(base, id) then ended(id, ROWS[row + 5], base) end
      if not record then pending(id, ROWS[at + 3]) end
    end
  end
  if goes_on then return end
  if RDB and record and ROWS[record + 1] == 'T' then
    forgotten[#forgotten + 1] = index(base, id)  -- the record remembers the id, and longer
  else
    ended(id, ROWS[row + 5], base)
  end
end

local function each(act)
  local row, number = 1, 0
  while row <= #ROWS do
    local follows, has_record = ROWS[row + 7], ROWS[row + 8] == 1
    local record = row + 9 + 7 * follows
    number = number + 1
    act(number, row, follows, has_record and record or nil)
    row = record + (has_record and 8 or 0)
  end
end

local numbers, records = {}, {}
each(function(_, row, follows, record)
  local key = stream(KEYS[ROWS[row]], ROWS[row + 1])
  numbers[key] = (numbers[key] or 0) + 1
  -- One that follows itself, or is followed by others, may have its record written before: that one is looked up later.
  if record and follows == 0 then records[#records + 1] = RP .. ':r:' .. ROWS[record] end
end)
for key, number in pairs(numbers) do
  if number > 4 then look(key, number) end
end

if RDB and #records > 4 and #records <= 500 then in_records(learn, records) end

-- Acknowledged first, together: a server without room lets a script go on whose first write needs none.
each(function(number, row) answers[number] = judge(row) end)
for key, entries in pairs(acknowledged) do
  for start = 1, #entries, 500 do
    local last = math.min(start + 499, #entries)
    redis.call('XACK', key, GROUP, unpack(entries, start, last))
    redis.call('XDEL', key, unpack(entries, start, last))
  end
end
each(function(number, row, follows, record)
  if answers[number] ~= 1 then return end
  if ROWS[row + 6] == 1 then finish(row, follows, record) end
  if record and RDB then in_records(keep, unpack(ROWS, record, record + 7)) end
end)
for start = 1, #forgotten, 500 do
  redis.call('DEL', unpack(forgotten, start, math.min(start + 499, #forgotten)))
end
for _, number in ipairs(unheard_of()) do answers[#answers + 1] = number end
return answers
