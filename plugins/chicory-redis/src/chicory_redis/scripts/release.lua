-- Give back what was read and is too much, as if it had not been: any consumer may take it at once, and no delivery is counted.
-- KEYS: the queues. ROWS: for each: number of its queue, level, entry.
-- Returns nothing.
for i = 1, #ROWS, 3 do
  local key = stream(KEYS[ROWS[i]], ROWS[i + 1])
  redis.call('XCLAIM', key, GROUP, ME, 0, ROWS[i + 2], 'IDLE', 86400000, 'RETRYCOUNT', 0, 'JUSTID')
end
