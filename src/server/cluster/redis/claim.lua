-- ARGV: settling time of a new registry in ms, node, registration that is gone or '', id, registration, signature with
-- details, the node and the details of the announcement that is known or '', time in ms from the end of the lease of a
-- node to its removal. KEYS: the ids of the node, those of the node of the registration that is gone, announcements,
-- announcements by node.
local SETTLE, NODE, GONE, ID, REGISTRATION, RECORD, BY, PLACE, REAP = unpack(ARGV, 3)

if not is_member(NODE) then
    return { 'not_a_member' }
end
local time = now()
local registration, node, record = holder(ID)
if registration == REGISTRATION then
    -- A claim that is repeated changes nothing. The set is written again in case that it was lost.
    redis.call('ZADD', KEYS[5], 0, ID)
    return { answer('granted') }
end
if registration then
    if registration ~= GONE then
        return { answer('held'), record, lease_of(node, time) }
    end
else
    -- The clock of another engine, after a failover, may be behind that of the one which began the registry.
    local age = time - (tonumber(redis.call('HGET', META, 'born')) or 0)
    if 0 <= age and age < tonumber(SETTLE) then
        return { answer('settling'), duration(SETTLE - age) }
    end
end
local announced = redis.call('HGET', KEYS[7], ID)
if announced then
    local by, details = place(announced)
    if by and not is_gone(by, time, REAP) and (by ~= BY or details ~= PLACE) then
        return { answer('expected'), announced }
    end
    end_place(KEYS[7], KEYS[8], ID, announced)
end
if registration then
    redis.call('ZREM', KEYS[6], ID)
end
hold(KEYS[5], { ID, REGISTRATION, RECORD })
return { answer('granted') }
