-- ARGV: time in ms from the end of the lease to the removal, most devices, node. KEYS: the ids of the node,
-- announcements, announcements by node.
local REAP, BATCH, NODE = unpack(ARGV, 3)

local lease_end = redis.call('ZSCORE', NODES, NODE)
if lease_end and now() < lease_end + REAP then
    return { answer('reaped'), '0' }
end
return remove_some(NODE, tonumber(BATCH))
