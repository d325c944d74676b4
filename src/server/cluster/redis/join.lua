-- ARGV: schema, epoch of a new registry, lease in ms, devices of one change, node, its name, its record, node that is
-- gone or ''. KEYS: the ids of the node that is gone, announcements, announcements by node.
local SCHEMA, EPOCH, LEASE, BATCH, NODE, NAME, RECORD, GONE = unpack(ARGV, 3)

local schema, time = redis.call('HGET', META, 'schema'), now()
if schema and schema ~= SCHEMA then
    return { 'schema', schema }
end
if redis.call('HSETNX', META, 'epoch', EPOCH) == 1 then
    -- A new registry. What is left of one without an epoch has versions that mean nothing.
    redis.call('HSET', META, 'schema', SCHEMA, 'born', whole(time), 'version', '0 0')
    redis.call('DEL', NODES, RECORDS, DEVICES, KEYS[6], KEYS[7])
end

for _, other in ipairs(redis.call('ZRANGE', NODES, 0, -1)) do
    if other ~= NODE and string.match(other, '^(.*)%.%x+$') == NAME then
        if other ~= GONE then
            local record = redis.call('HGET', RECORDS, other) or ''
            return { 'name_held', other, record, lease_of(other, time) }
        end
        while remove_held(KEYS[5], other, tonumber(BATCH)) == tonumber(BATCH) do end
        while remove_places(KEYS[6], KEYS[7], other, tonumber(BATCH)) == tonumber(BATCH) do end
        remove_node(other)
        break
    end
end

local known = redis.call('ZSCORE', NODES, NODE) and redis.call('HGET', RECORDS, NODE)
redis.call('ZADD', NODES, whole(time + LEASE), NODE)
if known ~= RECORD then
    redis.call('HSET', RECORDS, NODE, RECORD)
    change('joined', { NODE, RECORD })
end

local meta = redis.call('HMGET', META, 'epoch', 'version', 'born')
return append_live({ 'joined', meta[1], meta[2], duration(time - (tonumber(meta[3]) or time)) }, time)
