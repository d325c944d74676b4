-- ARGV: settling time of a new registry in ms, node, registration that is gone or '', id, registration, signature with
-- details. KEYS: the ids of the node, and those of the node of the registration that is gone.
local SETTLE, NODE, GONE, ID, REGISTRATION, RECORD = unpack(ARGV, 2)

if not is_member(NODE) then
    return { 'not_a_member' }
end
local time = now()
local registration, node, record = holder(ID)
if registration == REGISTRATION then
    -- A claim that is repeated changes nothing. The set is written again in case that it was lost.
    redis.call('ZADD', KEYS[5], 0, ID)
    return { 'granted' }
end
if registration then
    if registration ~= GONE then
        return { 'held', record, lease_of(node, time) }
    end
    redis.call('ZREM', KEYS[6], ID)
else
    -- The clock of another engine, after a failover, may be behind that of the one which began the registry.
    local age = time - (tonumber(redis.call('HGET', META, 'born')) or 0)
    if 0 <= age and age < tonumber(SETTLE) then
        return { 'settling', duration(SETTLE - age) }
    end
end
hold(KEYS[5], { ID, REGISTRATION, RECORD })
return { 'granted' }
