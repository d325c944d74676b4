-- ARGV: the sealed servers or '', '1' if those that are there stay, and the only ones that are replaced, or '' for any.
-- KEYS[5]: the sealed servers.
local SEALED, ABSENT, ONLY = unpack(ARGV, 3)

local known = redis.call('GET', KEYS[5]) or ''
if known ~= SEALED and not (ABSENT == '1' and known ~= '') and (ONLY == '' or ONLY == known) then
    if SEALED == '' then
        redis.call('DEL', KEYS[5])
    else
        redis.call('SET', KEYS[5], SEALED)
    end
    change('ice', {})
end
return { answer('done') }
