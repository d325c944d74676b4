-- ARGV: most devices, node. KEYS: the ids of the node, announcements, announcements by node.
local BATCH, NODE = unpack(ARGV, 3)

-- The lease ends with the first batch. The node is asked for no device while the others are removed.
redis.call('ZADD', NODES, 'XX', 0, NODE)
return remove_some(NODE, tonumber(BATCH))
