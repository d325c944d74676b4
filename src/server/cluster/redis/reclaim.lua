-- ARGV: node, then id, registration, signature with details of each device. KEYS: the ids of the node,
-- announcements, announcements by node.
local NODE = ARGV[3]

if not is_member(NODE) then
    return { 'not_a_member' }
end
local time, free, reply = now(), {}, {}
for i = 4, #ARGV, 3 do
    local registration, node, record = holder(ARGV[i])
    if registration and registration ~= ARGV[i + 1] then
        reply[#reply + 1] = { 'held', record, lease_of(node, time) }
    else
        -- A record that was signed with an earlier secret is written again.
        if registration and string.match(record, '^[^ ]+ %d+ (.*)$') == ARGV[i + 2] then
            redis.call('ZADD', KEYS[5], 0, ARGV[i])
        else
            local announced = redis.call('HGET', KEYS[6], ARGV[i])
            if announced then
                end_place(KEYS[6], KEYS[7], ARGV[i], announced)
            end
            for field = i, i + 2 do
                free[#free + 1] = ARGV[field]
            end
        end
        reply[#reply + 1] = { 'granted' }
    end
end
hold(KEYS[5], free)
table.insert(reply, 1, answer('reclaimed'))
return reply
