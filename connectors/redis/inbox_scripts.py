"""The scripts of the inbox of a fleet. Each replica has lines of its own, so who owns an event is where it waits.

An event is a hash; its line is a sorted set of ids by due time, and how many a line has is a field of its owner's hash
of lines. A change of an event that is another's by now changes nothing: who was taken for dead writes into the void.
"""

from __future__ import annotations

from typing import Final

from connectors.redis.scripts import fleet_script

_ROWS: Final = """
local me = ARGV[3]

local function count(owner, line, by)
    if redis.call('HINCRBY', key('lines', owner), line, by) == 0 then
        redis.call('HDEL', key('lines', owner), line)
    end
    if redis.call('HINCRBY', key('inboxes'), owner, by) == 0 then redis.call('HDEL', key('inboxes'), owner) end
end

local function shown(id, owner, line, due)
    redis.call('ZADD', key('line', owner, line), due, id)
    count(owner, line, 1)
end

local function hidden(id, owner, line)
    redis.call('ZREM', key('line', owner, line), id)
    count(owner, line, -1)
end
"""

# Changes as they come: a letter, and what it is done with. What needs memory is written first, for a Redis without any
# refuses nothing any more once a script has written.
_APPLY: Final = """
local i = 4
while i <= #ARGV do
    local what, id = ARGV[i], ARGV[i + 1]
    local name = key('event', id)
    local row = redis.call('HMGET', name, 'owner', 'line')
    if what == 'accept' then
        if not row[1] then
            local line, due = ARGV[i + 2], ARGV[i + 3]
            redis.call('HSET', name, 'owner', me, 'line', line, 'about', ARGV[i + 4], 'payload', ARGV[i + 5],
                       'size', ARGV[i + 6])
            shown(id, me, line, due)
        end
        i = i + 7
    elseif what == 'change' then
        if row[1] == me then
            local line, due, about = ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
            redis.call('HSET', name, 'line', line, 'about', about)
            hidden(id, me, row[2])
            shown(id, me, line, due)
        end
        i = i + 5
    else
        if row[1] == me then
            hidden(id, me, row[2])
            redis.call('UNLINK', name)
        end
        i = i + 2
    end
end
"""

# ARGV: owner, line, until, rows and bytes at most, ids that are not wanted. Gives rows, and when the next one is due.
_PAGE: Final = """
local line, due_until = key('line', ARGV[3], ARGV[4]), tonumber(ARGV[5])
local limit, bytes = tonumber(ARGV[6]), tonumber(ARGV[7])
local known, unknown, rows = {}, {}, {}
for i = 8, #ARGV do known[ARGV[i]] = true end
local all = redis.call('ZRANGE', line, 0, limit + #ARGV - 7, 'WITHSCORES')
for i = 1, #all, 2 do
    if not known[all[i]] then
        local due = tonumber(all[i + 1])
        if due > due_until or #rows == limit then return {rows, all[i + 1]} end
        local row = redis.call('HMGET', key('event', all[i]), 'about', 'payload', 'size')
        bytes = bytes - #row[1] - tonumber(row[3])
        if #rows > 0 and bytes < 0 then return {rows, all[i + 1]} end
        rows[#rows + 1] = {row[1], row[2]}
    end
end
return {rows, false}
"""

_LINES: Final = """
local found, counts = {}, redis.call('HGETALL', key('lines', ARGV[3]))
for i = 1, #counts, 2 do
    local first = redis.call('ZRANGE', key('line', ARGV[3], counts[i]), 0, 0, 'WITHSCORES')
    found[#found + 1] = {counts[i], tonumber(counts[i + 1]), first[2]}
end
return found
"""

# ARGV: who adopts, who is dead, rows at most. Gives how many were moved.
_ADOPT: Final = """
local dead, left = ARGV[4], tonumber(ARGV[5])
local moved = 0
for _, line in ipairs(redis.call('HKEYS', key('lines', dead))) do
    local rows = redis.call('ZRANGE', key('line', dead, line), 0, left - moved - 1, 'WITHSCORES')
    for i = 1, #rows, 2 do
        hidden(rows[i], dead, line)
        redis.call('HSET', key('event', rows[i]), 'owner', me)
        shown(rows[i], me, line, rows[i + 1])
        moved = moved + 1
    end
    if moved >= left then return moved end
end
return moved
"""

APPLY: Final = fleet_script(_ROWS + _APPLY)
#: The same where nothing grows: it makes room.
SETTLE: Final = fleet_script(_ROWS + _APPLY, when_full=True)
PAGE: Final = fleet_script(_PAGE)
LINES: Final = fleet_script(_LINES)
OWNERS: Final = fleet_script("return redis.call('HKEYS', key('inboxes'))")
ADOPT: Final = fleet_script(_ROWS + _ADOPT, when_full=True)
