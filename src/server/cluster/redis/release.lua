-- ARGV: id, registration, and the number of the key with the ids of its node, for each device.
local released = {}
for i = 2, #ARGV, 3 do
    local id = ARGV[i]
    if holder(id) == ARGV[i + 1] then
        redis.call('HDEL', DEVICES, id)
        redis.call('ZREM', KEYS[tonumber(ARGV[i + 2])], id)
        released[#released + 1] = id
    end
end
if #released > 0 then
    change('released', released)
end
return { 'done' }
