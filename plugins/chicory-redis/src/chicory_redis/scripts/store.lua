-- Keep records, each unless it is late.
-- ARGV from 7, for each: id, flag, state, hop, count, holder, ttl in ms or "-", body.
-- Returns for each 1 if it was kept, else 0.
local answers = {}
for i = 7, #ARGV, 8 do
  answers[#answers + 1] = keep(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6], ARGV[i + 7])
end
return answers
