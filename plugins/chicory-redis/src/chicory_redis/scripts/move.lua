-- Take messages that wait out of a queue, and publish others in their place, or none.
-- ARGV: 7 the queue, then for each: id, "1" if another follows, and that as for publish (7 fields; empty ones if none).
-- Returns the ids that were there, and so moved or went.
local queue, moved = ARGV[7], {}
for i = 8, #ARGV, 9 do
  local id = ARGV[i]
  local at = find(id)
  if at and at.queue == queue and at.kind ~= 'x' and take_out(id, at) then
    moved[#moved + 1] = id
    if ARGV[i + 1] == '1' then
      if ARGV[i + 2] ~= id then ended(id, at.hop, queue) end
      place(ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6], ARGV[i + 7], at.records, ARGV[i + 8])
      local db, prefix = string.match(at.records, '^(%d+) (.*)$')
      if db then
        RDB, RP = db, prefix
        pending(ARGV[i + 2], ARGV[i + 5])
      end
    else
      ended(id, at.hop, queue)
      forget(id, at.records)
    end
  end
end
return moved
