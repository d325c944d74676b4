-- ARGV: most announcements of one step, node, then ids, none for all. KEYS: announcements, announcements by node.
local BATCH, NODE = unpack(ARGV, 3)

if #ARGV == 4 then
    while remove_places(KEYS[5], KEYS[6], NODE, tonumber(BATCH)) == tonumber(BATCH) do end
end
local removed = false
for i = 5, #ARGV do
    local announced = redis.call('HGET', KEYS[5], ARGV[i])
    if place(announced) == NODE then
        end_place(KEYS[5], KEYS[6], ARGV[i], announced)
        removed = true
    end
end
if removed then
    announced_changed()
end
return { answer('done') }
