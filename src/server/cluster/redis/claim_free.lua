-- The way of most claims: the id is free, the registry has settled, and no node has announced the device. It stands before
-- the functions that all other claims need, since a script makes its functions anew at each call. Arguments, keys and
-- outcome are those of claim.lua, which goes on with each claim that is not granted here.
do
    local ID, REGISTRATION, RECORD = ARGV[6], ARGV[7], ARGV[8]
    local meta, time = redis.call('HMGET', KEYS[1], 'epoch', 'born', 'version'), redis.call('TIME')
    local age = time[1] * 1000 + math.floor(time[2] / 1000) - (tonumber(meta[2]) or 0)
    local number, after = string.match(meta[3] or '', '^(%d+) (%x+)$')
    if meta[1] and number and (age < 0 or age >= tonumber(ARGV[3])) and redis.call('ZSCORE', KEYS[2], ARGV[4])
        and not redis.call('HGET', KEYS[4], ID) and not redis.call('HGET', KEYS[7], ID) then
        number = string.format('%.0f', number + 1)
        local made = number .. ' ' .. ARGV[2]
        redis.call('HSET', KEYS[1], 'version', made)
        redis.call('HSET', KEYS[4], ID, REGISTRATION .. ' ' .. number .. ' ' .. RECORD)
        redis.call('ZADD', KEYS[5], 0, ID)
        redis.call('PUBLISH', ARGV[1], made .. ' ' .. after .. ' claimed ' .. #ID .. ':' .. ID .. #REGISTRATION .. ':'
            .. REGISTRATION .. #RECORD .. ':' .. RECORD)
        return 'granted ' .. made
    end
end
