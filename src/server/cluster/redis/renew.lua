-- ARGV: lease in ms, node.
local LEASE, NODE = unpack(ARGV, 3)

if not is_member(NODE) then
    return { 'not_a_member' }
end
local time = now()
redis.call('ZADD', NODES, whole(time + LEASE), NODE)
local meta = redis.call('HMGET', META, 'epoch', 'version')
local live = redis.call('ZRANGEBYSCORE', NODES, '(' .. whole(time), '+inf')
return { 'renewed', meta[1], meta[2], live }
