-- ARGV: id, registration, and the number of the key with the ids of its node, for each device. Without the functions of
-- prelude.lua, which a script makes anew at each call: each device that leaves is one call.
local released = {}
for i = 2, #ARGV, 3 do
    local id, owner = ARGV[i], ARGV[i + 1] .. ' '
    local record = redis.call('HGET', KEYS[4], id)
    -- A record is `REGISTRATION VERSION SIGNATURE DETAILS`.
    if record and string.sub(record, 1, #owner) == owner and string.find(record, '^%d+ ', #owner + 1) then
        redis.call('HDEL', KEYS[4], id)
        redis.call('ZREM', KEYS[tonumber(ARGV[i + 2])], id)
        released[#released + 1] = #id .. ':' .. id
    end
end
if #released > 0 then
    local version = string.format('%.0f', redis.call('HINCRBY', KEYS[1], 'version', 1))
    redis.call('PUBLISH', ARGV[1], version .. ' released ' .. table.concat(released))
end
return 'done'
