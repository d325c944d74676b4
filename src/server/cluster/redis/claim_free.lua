-- The way of most claims: the id is free, the registry has settled, and no node has announced the device. It stands before
-- the functions that all other claims need, since a script makes its functions anew at each call. Arguments, keys and
-- outcome are those of claim.lua, which goes on with each claim that is not granted here.
do
    local ID, REGISTRATION, RECORD = ARGV[5], ARGV[6], ARGV[7]
    local meta, time = redis.call('HMGET', KEYS[1], 'epoch', 'born'), redis.call('TIME')
    local age = time[1] * 1000 + math.floor(time[2] / 1000) - (tonumber(meta[2]) or 0)
    if meta[1] and (age < 0 or age >= tonumber(ARGV[2])) and redis.call('ZSCORE', KEYS[2], ARGV[3])
        and not redis.call('HGET', KEYS[4], ID) and not redis.call('HGET', KEYS[7], ID) then
        local version = string.format('%.0f', redis.call('HINCRBY', KEYS[1], 'version', 1))
        redis.call('HSET', KEYS[4], ID, REGISTRATION .. ' ' .. version .. ' ' .. RECORD)
        redis.call('ZADD', KEYS[5], 0, ID)
        redis.call('PUBLISH', ARGV[1], version .. ' claimed ' .. #ID .. ':' .. ID .. #REGISTRATION .. ':' .. REGISTRATION
            .. #RECORD .. ':' .. RECORD)
        return 'granted'
    end
end
