-- The part that all scripts but release.lua share. KEYS begin alike; see keys.rs for what each key holds. ARGV begin with the
-- channel of the feed and the stamp of a change that this call makes.
local META, NODES, RECORDS, DEVICES = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local CHANNEL, STAMP = ARGV[1], ARGV[2]

-- The version that this call has made, once it has changed the registry.
local made

-- Whole numbers as text: tostring() rounds those with more than 14 digits.
local function whole(number)
    return string.format('%.0f', number)
end

-- The time in ms, by the engine's clock.
local function now()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Publishes a change as the text `VERSION AFTER KIND FIELD...`. The length stands before each field, which may be any text.
local function publish(after, kind, fields)
    for i, field in ipairs(fields) do
        fields[i] = #field .. ':' .. field
    end
    redis.call('PUBLISH', CHANNEL, made .. ' ' .. after .. ' ' .. kind .. ' ' .. table.concat(fields))
end

-- Begins the next version of the registry: `NUMBER STAMP`. An engine that has lost writes gives their numbers to other
-- changes, and never their stamps. Returns the number, and the stamp of the version before.
local function begin_version()
    local known = redis.call('HGET', META, 'version') or '0 0'
    local number, after = string.match(known, '^(%d+) (%x+)$')
    if not number then
        error(known .. ' is no version')
    end
    number = whole(number + 1)
    made = number .. ' ' .. STAMP
    redis.call('HSET', META, 'version', made)
    return number, after
end

local function change(kind, fields)
    local _, after = begin_version()
    publish(after, kind, fields)
end

-- Returns the name of an answer, followed by the version of the registry. A node notices by it that the engine has lost
-- writes, also where the call changes nothing.
local function answer(kind)
    return kind .. ' ' .. (made or redis.call('HGET', META, 'version') or '0 0')
end

local function is_member(node)
    return redis.call('ZSCORE', NODES, node) and redis.call('HEXISTS', META, 'epoch') == 1
end

-- A time in ms as text, from 0 to a day, whatever stands in the registry.
local function duration(time)
    return whole(math.max(0, math.min(time, 86400000)))
end

-- Time in ms that is left of the lease of a node.
local function lease_of(node, time)
    local lease_end = redis.call('ZSCORE', NODES, node)
    return duration(lease_end and lease_end - time or 0)
end

-- Returns the registration that holds an id, its node, and the record. A record is `REGISTRATION VERSION SIGNATURE
-- DETAILS`. One that does not begin so was not written by a node: the id is free.
local function holder(id)
    local record = redis.call('HGET', DEVICES, id)
    if not record then
        return nil
    end
    local name, start, number = string.match(record, '^([0-9A-Za-z_.-]+)%.([0-9a-f]+)/(%d+) %d+ ')
    if not name or #name > 64 or #start ~= 16 or #number > 19 or (#number > 1 and string.sub(number, 1, 1) == '0') then
        return nil
    end
    local node = name .. '.' .. start
    return node .. '/' .. number, node, record
end

-- Gives ids to registrations of one node: a list of id, registration, signature with details, and so on. `held` is the
-- set of the ids of that node.
local function hold(held, wanted)
    if #wanted == 0 then
        return
    end
    local number, after = begin_version()
    for i = 1, #wanted, 3 do
        redis.call('HSET', DEVICES, wanted[i], wanted[i + 1] .. ' ' .. number .. ' ' .. wanted[i + 2])
        redis.call('ZADD', held, 0, wanted[i])
    end
    publish(after, 'claimed', wanted)
end

-- Removes the devices of a node, at most `most` of them. Returns how many ids its set had.
local function remove_held(held, node, most)
    local ids, removed = redis.call('ZRANGE', held, 0, most - 1), {}
    for _, id in ipairs(ids) do
        local _, owner = holder(id)
        if owner == node then
            redis.call('HDEL', DEVICES, id)
            removed[#removed + 1] = id
        end
        redis.call('ZREM', held, id)
    end
    if #removed > 0 then
        change('released', removed)
    end
    return #ids
end

-- Returns the node and the details of an announcement. It is `NODE SIGNATURE DETAILS`; one that does not begin so was not
-- written by a node, and counts for nothing.
local function place(announced)
    return string.match(announced or '', '^([0-9A-Za-z_.-]+) [^ ]+ (.*)$')
end

-- Returns whether announcements of a node count for nothing: it has no lease, or one that ended long ago.
local function is_gone(node, time, reap)
    local lease_end = redis.call('ZSCORE', NODES, node)
    return not lease_end or time >= lease_end + reap
end

-- Ends the announcement of a device, which is in the registry as `announced`.
local function end_place(places, pending, id, announced)
    redis.call('HDEL', places, id)
    redis.call('ZREM', pending, (place(announced) or '') .. ' ' .. id)
end

-- Publishes that announcements have come or gone, so that nodes notice an engine that has lost that.
local function announced_changed()
    change('announced', {})
end

-- Removes announcements of a node, at most `most` of them. Returns how many there were.
local function remove_places(places, pending, node, most)
    local members = redis.call('ZRANGEBYLEX', pending, '[' .. node .. ' ', '(' .. node .. '!', 'LIMIT', 0, most)
    local removed = false
    for _, member in ipairs(members) do
        local id = string.sub(member, #node + 2)
        if place(redis.call('HGET', places, id) or '') == node then
            redis.call('HDEL', places, id)
            removed = true
        end
        redis.call('ZREM', pending, member)
    end
    if removed then
        announced_changed()
    end
    return #members
end

local function remove_node(node)
    redis.call('HDEL', RECORDS, node)
    if redis.call('ZREM', NODES, node) == 1 then
        change('left', { node })
    end
end

-- Removes some devices and announcements of a node, and the node with the last one.
local function remove_some(node, most)
    if remove_held(KEYS[5], node, most) == most or remove_places(KEYS[6], KEYS[7], node, most) == most then
        return { answer('reaped'), '1' }
    end
    remove_node(node)
    return { answer('reaped'), '0' }
end

-- Appends the nodes that have a lease, each with its record.
local function append_live(reply, time)
    for _, node in ipairs(redis.call('ZRANGEBYSCORE', NODES, '(' .. whole(time), '+inf')) do
        reply[#reply + 1] = node
        reply[#reply + 1] = redis.call('HGET', RECORDS, node) or ''
    end
    return reply
end

