-- Give back what was read and is too much, as if it had not been: any consumer may take it at once, and no delivery is counted.
-- ARGV from 7, for each: queue, level, entry.
-- Returns nothing.
for i = 7, #ARGV, 3 do
  redis.call('XCLAIM', stream(ARGV[i], ARGV[i + 1]), GROUP, ME, 0, ARGV[i + 2], 'IDLE', 86400000, 'RETRYCOUNT', 0, 'JUSTID')
end
