-- ARGV: time in ms from the end of the lease of a node to its removal, most announcements, announcements that are looked at
-- to make room, node, then id, signature with details of each device. KEYS: announcements, announcements by node.
local REAP, MOST, BATCH, NODE = unpack(ARGV, 3)

if not is_member(NODE) then
    return { 'not_a_member' }
end
local time, reply, changed = now(), {}, false

local function remove(node, id)
    changed = true
    redis.call('HDEL', KEYS[5], id)
    redis.call('ZREM', KEYS[6], node .. ' ' .. id)
end

-- Removes announcements of nodes that are gone. Returns whether there is room.
local function make_room()
    for _, member in ipairs(redis.call('ZRANGE', KEYS[6], 0, BATCH - 1)) do
        local node, id = string.match(member, '^([^ ]*) (.*)$')
        if is_gone(node, time, REAP) then
            remove(node, id)
        end
    end
    return redis.call('HLEN', KEYS[5]) < tonumber(MOST)
end

for i = 7, #ARGV, 2 do
    local id, outcome = ARGV[i], 'pending'
    local announced = redis.call('HGET', KEYS[5], id)
    local by = place(announced)
    if holder(id) then
        outcome = 'registered'
        if by == NODE then
            remove(NODE, id)
        end
    elseif by and by ~= NODE and not is_gone(by, time, REAP) then
        outcome = 'taken'
    elseif not announced and redis.call('HLEN', KEYS[5]) >= tonumber(MOST) and not make_room() then
        outcome = 'full'
    else
        if by and by ~= NODE then
            remove(by, id)
        end
        -- An announcement that is repeated changes nothing. The set is written again in case that it was lost.
        local record = NODE .. ' ' .. ARGV[i + 1]
        if announced ~= record then
            redis.call('HSET', KEYS[5], id, record)
            changed = true
        end
        redis.call('ZADD', KEYS[6], 0, NODE .. ' ' .. id)
    end
    reply[#reply + 1] = outcome
end
if changed then
    announced_changed()
end
table.insert(reply, 1, answer('expected'))
return reply
