-- Accept messages; a repeat is dropped.
-- KEYS: their queues. ROWS: for each: id, number of its queue, level, hop, due, due in ms (0: now), body.
-- Returns the numbers of the queues that this server has not heard of.
for i = 1, #ROWS, 7 do publish(ROWS[i], KEYS[ROWS[i + 1]], unpack(ROWS, i + 2, i + 6)) end
return unheard_of()
