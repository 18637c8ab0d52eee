-- Accept messages; a repeat is dropped.
-- ARGV from 7: id, queue, level, hop, due, due in ms (0: now), body; again for each.
-- Returns nothing.
for i = 7, #ARGV, 7 do
  publish(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6])
end
