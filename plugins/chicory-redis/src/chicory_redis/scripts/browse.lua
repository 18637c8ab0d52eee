-- Look at a queue: a page of it, or some ids.
-- KEYS: the queue. ROWS: how many, where to go on: "<level> <entry>", "d <offset>" or "" for the beginning; or "=" and then ids.
-- Returns the place to go on ("" at the end), then for each: kind (ready, delayed, running), level, ms it became due, id, hop,
--         due, body.
local base, limit, after = KEYS[1], ROWS[1], ROWS[2]
local page = {''}

local function show_entry(level, entry)
  local held = redis.pcall('XPENDING', stream(base, level), GROUP, entry[1], entry[1], 1)
  local f = entry[2]
  local kind = (not held.err and held[1]) and 'running' or 'ready'
  page[#page + 1] = {kind, level, string.match(entry[1], '^(%d+)'), f[2], f[4], f[6], f[10]}
end

local function show_delayed(id, at)
  local score = redis.call('ZSCORE', base .. ':d', id)
  page[#page + 1] = {'delayed', at.level, score, id, tostring(at.hop), at.due, at.body}
end

if after == '=' then
  for i = 3, #ROWS do
    local at = find(base, ROWS[i])
    if at and at.base == base and at.kind == 's' then
      local entry = redis.call('XRANGE', stream(base, at.level), at.entry, at.entry)[1]
      if entry then show_entry(at.level, entry) end
    elseif at and at.base == base and at.kind == 'd' then
      show_delayed(ROWS[i], at)
    end
  end
  return page
end
local from_level, from_entry = string.match(after, '^(%d+) (.*)$')
local offset = tonumber(string.match(after, '^d (%d+)$') or '0')
if string.sub(after, 1, 1) ~= 'd' then
  for level = tonumber(from_level or TOP), 0, -1 do
    local start = '-'
    if from_entry and level == tonumber(from_level) then start = '(' .. from_entry end
    for _, entry in ipairs(redis.call('XRANGE', stream(base, level), start, '+', 'COUNT', limit - #page + 1)) do
      show_entry(level, entry)
      page[1] = level .. ' ' .. entry[1]
    end
    if #page > limit then return page end
  end
end
for _, id in ipairs(redis.call('ZRANGE', base .. ':d', offset, offset + limit - #page)) do
  local at = find(base, id)
  offset = offset + 1
  if at then show_delayed(id, at) end
end
page[1] = #page > limit and 'd ' .. offset or ''
return page
