-- ARGV: the sealed servers or '', and '1' if those that are there stay. KEYS[5]: the sealed servers.
local SEALED, ABSENT = unpack(ARGV, 2)

local known = redis.call('GET', KEYS[5]) or ''
if known ~= SEALED and not (ABSENT == '1' and known ~= '') then
    if SEALED == '' then
        redis.call('DEL', KEYS[5])
    else
        redis.call('SET', KEYS[5], SEALED)
    end
    change('ice', {})
end
return { 'done' }
