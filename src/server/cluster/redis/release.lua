-- ARGV: id, registration, and the number of the key with the ids of its node, for each device. Without the functions of
-- prelude.lua, which a script makes anew at each call: each device that leaves is one call.
local released = {}
for i = 3, #ARGV, 3 do
    local id, owner = ARGV[i], ARGV[i + 1] .. ' '
    local record = redis.call('HGET', KEYS[4], id)
    -- A record is `REGISTRATION VERSION SIGNATURE DETAILS`.
    if record and string.sub(record, 1, #owner) == owner and string.find(record, '^%d+ ', #owner + 1) then
        redis.call('HDEL', KEYS[4], id)
        redis.call('ZREM', KEYS[tonumber(ARGV[i + 2])], id)
        released[#released + 1] = #id .. ':' .. id
    end
end
local known = redis.call('HGET', KEYS[1], 'version') or '0 0'
if #released == 0 then
    return 'done ' .. known
end
local number, after = string.match(known, '^(%d+) (%x+)$')
if not number then
    error(known .. ' is no version')
end
local made = string.format('%.0f', number + 1) .. ' ' .. ARGV[2]
redis.call('HSET', KEYS[1], 'version', made)
redis.call('PUBLISH', ARGV[1], made .. ' ' .. after .. ' released ' .. table.concat(released))
return 'done ' .. made
