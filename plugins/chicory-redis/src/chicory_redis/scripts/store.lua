-- Keep records, each unless it is late.
-- KEYS: none. ROWS: for each: id, flag, state, hop, count, holder, ttl in ms or "-", body.
-- Returns for each 1 if it was kept, else 0.
local answers = {}
for i = 1, #ROWS, 8 do answers[#answers + 1] = keep(unpack(ROWS, i, i + 7)) end
return answers
