-- Take messages that wait out of a queue, and publish others in their place, or none.
-- KEYS: the queue, and those of what follows. ROWS: for each: id, 1 if another follows (else 0), and that as for publish (7 fields;
--       empty ones if none).
-- Returns the ids that were there, and so moved or went.
local base, moved = KEYS[1], {}

local function replace(old, at, row)
  local id, there, level, hop = ROWS[row], KEYS[ROWS[row + 1]], ROWS[row + 2], ROWS[row + 3]
  local due, score, body = ROWS[row + 4], ROWS[row + 5], ROWS[row + 6]
  if index(there, id) ~= index(base, old) then ended(old, at.hop, base) end
  place(id, there, level, hop, due, score, at.records, body)
  local db, prefix = string.match(at.records, '^(%d+) (.*)$')
  if db then
    RDB, RP = db, prefix
    pending(id, hop)
  end
end

for i = 1, #ROWS, 9 do
  local id = ROWS[i]
  local at = find(base, id)
  -- A message that has been moved, and has come back, since it was looked at stays: it is of the same or a higher hop.
  local is_stale = at and ROWS[i + 1] == 1 and ROWS[i + 2] == id and tonumber(ROWS[i + 5]) <= tonumber(at.hop)
  if at and at.base == base and at.kind ~= 'x' and not is_stale and take_out(id, at) then
    moved[#moved + 1] = id
    if ROWS[i + 1] == 1 then
      replace(id, at, i + 2)
    else
      ended(id, at.hop, base)
      forget(id, at.records)
    end
  end
end
return moved
