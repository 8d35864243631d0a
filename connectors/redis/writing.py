"""The scripts that write the store, and the changes of the Store port as their arguments."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Sequence
from typing import Final, assert_never

import msgspec

from connectors.redis.link import Argument
from connectors.redis.rows import lease_field
from connectors.redis.scripts import MISS, fleet_script
from router.core.fleet import LeaseKey
from router.core.model import FailedBatch
from router.ports import (
    Change,
    DeleteFailure,
    DeliveryEnded,
    Erasure,
    FailureEntry,
    Holds,
    KeepFailure,
    OwnsEvent,
    PutState,
    RenameMapping,
    SetStatus,
    Unchanged,
    Unclaim,
)

#: Digits of what stands for an ordering key in names: 128 bits of a digest.
KEY_DIGITS: Final = 32

# A failure is in a sorted set of its mapping and status, in one of its status, in one for each of its keys, and while a
# destination is to be served in one for that; and counted. `shown` and `hidden` keep those in step with its hash.
# `freed` are payloads outside of Redis that nothing names any more.
_ROWS: Final = f"""
local totals, freed = key('totals'), {{}}
local STATUSES = {{'stored', 'delivered', 'replaying', 'replayed', 'failed_again', 'dropped'}}

local function count(row, sign)
    local name = row.status .. ':' .. row.mapping
    local left = redis.call('HINCRBY', totals, 'f:' .. name, sign)
    if left == 0 then
        redis.call('HDEL', totals, 'f:' .. name, 'u:' .. name, 'b:' .. name)
    else
        if row.undelivered then redis.call('HINCRBY', totals, 'u:' .. name, sign) end
        if row.size ~= 0 then redis.call('HINCRBY', totals, 'b:' .. name, sign * row.size) end
    end
end

local function shown(row)
    redis.call('ZADD', key('by', row.mapping, row.status), row.at, row.id)
    redis.call('ZADD', key('all', row.status), row.at, row.id)
    if row.undelivered then redis.call('ZADD', key('undelivered', row.mapping), row.at, row.id) end
    count(row, 1)
end

local function hidden(row)
    redis.call('ZREM', key('by', row.mapping, row.status), row.id)
    redis.call('ZREM', key('all', row.status), row.id)
    if row.undelivered then redis.call('ZREM', key('undelivered', row.mapping), row.id) end
    count(row, -1)
end

local function find(id)
    local v = redis.call('HMGET', key('failure', id), 'mapping', 'status', 'undelivered', 'size', 'at', 'from', 'place')
    if not v[1] then return nil end
    return {{id = id, mapping = v[1], status = v[2], undelivered = v[3] == '1', size = tonumber(v[4]), at = v[5],
            from = v[6], place = v[7]}}
end

-- What a failure takes up, as it is written: its event, and what is told of it.
local function weigh(id, sign)
    local name, bytes = key('failure', id), 0
    for _, part in ipairs({{'event', 'batch', 'info'}}) do bytes = bytes + redis.call('HSTRLEN', name, part) end
    redis.call('HINCRBY', totals, 'stored', sign * bytes)
end

local function free(row)
    if row.place then freed[#freed + 1] = row.place end
end

local function forget(row)
    hidden(row)
    weigh(row.id, -1)
    free(row)
    local name = key('failure', row.id)
    local digests = redis.call('HGET', name, 'keys') or ''
    for i = 1, #digests, {KEY_DIGITS} do
        redis.call('ZREM', key('key', digests:sub(i, i + {KEY_DIGITS - 1})), row.id)
    end
    redis.call('UNLINK', name)
end

local function become(row, status)
    hidden(row)
    row.status = status
    row.undelivered = row.undelivered and (status == 'stored' or status == 'replaying')
    local name = key('failure', row.id)
    if status == 'dropped' then
        weigh(row.id, -1)
        row.size = 0
        free(row)
        redis.call('HDEL', name, 'event', 'place')
        weigh(row.id, 1)
    end
    redis.call('HSET', name, 'status', status, 'undelivered', row.undelivered and 1 or 0, 'size', row.size)
    redis.call('HDEL', name, 'from', 'by')
    shown(row)
end
"""

_APPLY: Final = """
local ARGS = #ARGV
local i = 3
local function take(n)
    local taken = {}
    for j = 1, n do taken[j] = ARGV[i + j - 1] end
    i = i + n
    return unpack(taken)
end
local do_ = {}

function do_.put(mapping, name, text)
    local states = key('states', mapping)
    if text == '' then
        if redis.call('HDEL', states, name) == 1 and not mapping:find(':', 1, true) then
            redis.call('HINCRBY', KEYS[1], 'state:' .. mapping, -1)
        end
    elseif redis.call('HSET', states, name, text) == 1 and not mapping:find(':', 1, true) then
        redis.call('HINCRBY', KEYS[1], 'state:' .. mapping, 1)
    end
end

function do_.keep(id, digests, pairs_)
    local row = find(id)
    if row then forget(row) end
    local fields = {take(tonumber(pairs_))}
    redis.call('HSET', key('failure', id), 'keys', digests, unpack(fields))
    row = find(id)
    shown(row)
    weigh(id, 1)
    for j = 1, #digests, DIGITS do redis.call('ZADD', key('key', digests:sub(j, j + DIGITS - 1)), row.at, id) end
end

function do_.status(id, status)
    local row = find(id)
    if row then become(row, status) end
end

function do_.unclaim(id, by)
    local row = find(id)
    if row and row.from and redis.call('HGET', key('failure', id), 'by') == by then
        hidden(row)
        row.status = row.from
        redis.call('HSET', key('failure', id), 'status', row.from)
        redis.call('HDEL', key('failure', id), 'from', 'by')
        shown(row)
    end
end

function do_.delete(id)
    local row = find(id)
    if row then forget(row) end
end

function do_.accepted(id)
    local row = find(id)
    if not row then return end
    hidden(row)
    row.undelivered = false
    if row.status == 'stored' then row.status = 'delivered' end
    local name = key('failure', id)
    redis.call('HSET', name, 'undelivered', 0, 'status', row.status)
    redis.call('HINCRBY', name, 'deliveries', 1)
    redis.call('HDEL', name, 'delivery_error')
    if row.from == 'stored' then redis.call('HSET', name, 'from', 'delivered') end
    shown(row)
end

function do_.refused(id, error, next_s)
    local name = key('failure', id)
    if redis.call('EXISTS', name) == 1 then
        redis.call('HINCRBY', name, 'deliveries', 1)
        redis.call('HSET', name, 'delivery_error', error, 'next_delivery_s', next_s)
    end
end

local function moved(from, to)
    if redis.call('EXISTS', from) == 1 then redis.call('RENAME', from, to) end
end

function do_.rename(old, new)
    moved(key('states', old), key('states', new))
    local has = redis.call('HGET', KEYS[1], 'state:' .. old)
    if has then redis.call('HSET', KEYS[1], 'state:' .. new, has, 'state:' .. old, 0) end
    local lost = redis.call('HGET', KEYS[1], 'gone:' .. old)
    if lost then
        redis.call('HSET', KEYS[1], 'gone:' .. new, lost)
        redis.call('HDEL', KEYS[1], 'gone:' .. old)
    end
    for _, status in ipairs(STATUSES) do
        local from, at = key('by', old, status), 0
        local ids = redis.call('ZRANGE', from, at, at + 999)
        while #ids > 0 do
            for _, id in ipairs(ids) do redis.call('HSET', key('failure', id), 'mapping', new) end
            at = at + 1000
            ids = redis.call('ZRANGE', from, at, at + 999)
        end
        moved(from, key('by', new, status))
        for _, what in ipairs({'f:', 'u:', 'b:'}) do
            local value = redis.call('HGET', totals, what .. status .. ':' .. old)
            if value then
                redis.call('HSET', totals, what .. status .. ':' .. new, value)
                redis.call('HDEL', totals, what .. status .. ':' .. old)
            end
        end
    end
    moved(key('undelivered', old), key('undelivered', new))
end

-- Refusals come before anything is written: leases and events that are another's, texts that somebody has changed, and
-- texts of mappings that wait for a decision.
local leases = tonumber(take(1))
for n = 1, leases do
    local field, token = take(2)
    local row = redis.call('HGET', key('leases'), field)
    if not row or cjson.decode(row)[1] ~= tonumber(token) then return {'lost', n} end
end
local events = tonumber(take(1))
for n = 1, events do
    local id, owner = take(2)
    if redis.call('HGET', key('event', id), 'owner') ~= owner then return {'adopted', n} end
end
local unchanged = tonumber(take(1))
for n = 1, unchanged do
    local mapping, name, digest = take(3)
    local text = redis.call('HGET', key('states', mapping), name)
    if (text and redis.sha1hex(text) or '') ~= digest then return {'overtaken', n} end
end
local mappings = tonumber(take(1))
for n = 1, mappings do
    local mapping, has_begun = take(2)
    if has_begun == '1' then miss(mapping) end
    if redis.call('HEXISTS', KEYS[1], 'gone:' .. mapping) == 1 then return {'gone', mapping} end
end

local ARITY = {put = 3, keep = 3, status = 2, unclaim = 2, delete = 1, accepted = 1, refused = 3, rename = 2}
while i <= ARGS do
    local name = take(1)
    do_[name](take(ARITY[name]))
end
return {'done', redis.call('HGET', totals, 'stored') or '0', unpack(freed)}
""".replace("DIGITS", str(KEY_DIGITS))

# ARGV[3] is who claims, ARGV[4] which of its calls that is.
_CLAIM: Final = """
local won = {}
for i = 5, #ARGV do
    local row = find(ARGV[i])
    if row and row.status ~= 'replaying' and row.status ~= 'dropped' then
        hidden(row)
        redis.call('HSET', key('failure', row.id), 'from', row.status, 'status', 'replaying', 'by', ARGV[3],
                   'claim', ARGV[4])
        row.status = 'replaying'
        shown(row)
        won[#won + 1] = row.id
    end
end
return won
"""

# Takes a call of CLAIM back, of which it is not known whether it was run: ARGV[3] is that call.
_RELEASE: Final = """
for i = 4, #ARGV do
    local row, name = find(ARGV[i]), key('failure', ARGV[i])
    if row and row.status == 'replaying' and redis.call('HGET', name, 'claim') == ARGV[3] then
        hidden(row)
        row.status = row.from
        redis.call('HSET', name, 'status', row.from)
        redis.call('HDEL', name, 'from', 'by')
        shown(row)
    end
end
"""

# ARGV[3] is who claims now, ARGV[4] how those begin who had claimed: a replica, whichever process of it. ARGV[5] are
# earlier calls of ours of which it is not known whether they were run.
_IS_LEFT: Final = """
local function is_left(id)
    local v = redis.call('HMGET', key('failure', id), 'status', 'by', 'claim')
    if v[1] ~= 'replaying' or not v[2] then return false end
    return (v[2] ~= ARGV[3] and v[2]:sub(1, #ARGV[4]) == ARGV[4]) or (v[3] and ARGV[5]:find(v[3], 1, true))
end
"""

_LEFT: Final = """
local found = {}
for _, id in ipairs(redis.call('ZRANGE', key('all', 'replaying'), 0, -1)) do
    if is_left(id) then found[#found + 1] = id end
end
return found
"""

# ARGV[6] is this call.
_ADOPT: Final = """
local won = {}
for i = 7, #ARGV do
    if is_left(ARGV[i]) then
        redis.call('HSET', key('failure', ARGV[i]), 'by', ARGV[3], 'claim', ARGV[6])
        won[#won + 1] = ARGV[i]
    end
end
return won
"""

_DROP: Final = """
local idle = {}
for i = 3, #ARGV do
    local row = find(ARGV[i])
    if row and row.status ~= 'replaying' then
        become(row, 'dropped')
        idle[#idle + 1] = row.id
    end
end
return {idle, freed}
"""

_ERASE: Final = """
local done, unused, i = {}, {}, 3
while i <= #ARGV do
    local id, at, digest, pairs_ = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
    local row = find(id)
    if row and row.status ~= 'replaying' and tonumber(row.at) == tonumber(at) then
        if pairs_ == 0 then
            forget(row)
        else
            local name = key('failure', id)
            hidden(row)
            weigh(id, -1)
            free(row)
            redis.call('HDEL', name, 'event', 'place')
            local fields = {}
            for j = 1, pairs_ do fields[j] = ARGV[i + 3 + j] end
            local left, digests = {}, redis.call('HGET', name, 'keys') or ''
            for j = 1, #digests, DIGITS do
                local each = digests:sub(j, j + DIGITS - 1)
                if each ~= digest then left[#left + 1] = each end
            end
            redis.call('HSET', name, 'keys', table.concat(left), unpack(fields))
            redis.call('ZREM', key('key', digest), id)
            row = find(id)
            weigh(id, 1)
            shown(row)
        end
        done[#done + 1] = id
    else
        for j = 1, pairs_, 2 do
            if ARGV[i + 3 + j] == 'place' then unused[#unused + 1] = ARGV[i + 4 + j] end
        end
    end
    i = i + 4 + pairs_
end
for _, place in ipairs(unused) do freed[#freed + 1] = place end
return {done, freed}
""".replace("DIGITS", str(KEY_DIGITS))

# Writes what is there: refused where Redis takes no writes now.
_TRY: Final = "redis.call('HSET', KEYS[1], 'format', redis.call('HGET', KEYS[1], 'format'))"

APPLY: Final = fleet_script(MISS + _ROWS + _APPLY)
#: Is APPLY taken now? And ERASE, which makes room?
TRY_APPLY: Final = fleet_script(_TRY)
TRY_ERASE: Final = fleet_script(_TRY, when_full=True)
CLAIM: Final = fleet_script(_ROWS + _CLAIM)
RELEASE: Final = fleet_script(_ROWS + _RELEASE)
LEFT: Final = fleet_script(_IS_LEFT + _LEFT)
ADOPT: Final = fleet_script(_IS_LEFT + _ADOPT)
DROP: Final = fleet_script(_ROWS + _DROP)
ERASE: Final = fleet_script(_ROWS + _ERASE)
PLACES: Final = fleet_script("""
local places = {}
for i = 3, #ARGV do places[i - 2] = redis.call('HGET', key('failure', ARGV[i]), 'place') or '' end
return places
""")


def change_arguments(
    changes: Sequence[Change], places: dict[int, str], replica: str, claimer: str, has_begun: Callable[[str], bool]
) -> list[Argument]:
    """Write changes as arguments of APPLY.

    Args:
        changes: any.
        places: by index of a KeepFailure, where its event is outside of Redis.
        replica: whose inbox it is that must have events.
        claimer: whose claims may be taken back.
        has_begun: whether it is known of a mapping that it had texts.
    """
    holds = [change for change in changes if isinstance(change, Holds)]
    events = [change for change in changes if isinstance(change, OwnsEvent)]
    unchanged = [change for change in changes if isinstance(change, Unchanged)]
    mappings = {change.mapping for change in changes if isinstance(change, PutState)}
    arguments: list[Argument] = [len(holds)]
    for each in holds:
        arguments += [lease_field(LeaseKey(each.mapping, each.shard)), each.token]
    arguments.append(len(events))
    for event in events:
        arguments += [event.event_id, replica]
    arguments.append(len(unchanged))
    for text in unchanged:
        arguments += [text.mapping, text.key, text.digest]
    arguments.append(len(mappings))
    for name in mappings:
        arguments += [name, int(has_begun(name))]
    for index, change in enumerate(changes):
        arguments += _change(change, places.get(index), claimer)
    return arguments


def _change(change: Change, place: str | None, claimer: str) -> list[Argument]:  # noqa: PLR0911 - one case a change
    match change:
        case PutState(mapping, name, text):
            return ["put", mapping, name, text]
        case KeepFailure(entry, event):
            fields = _kept(entry, event, place)
            return ["keep", entry.batch.id, "".join(map(key_digest, dict.fromkeys(entry.keys))), len(fields), *fields]
        case SetStatus(failure_id, status):
            return ["status", failure_id, status]
        case Unclaim(failure_id):
            return ["unclaim", failure_id, claimer]
        case DeleteFailure(failure_id):
            return ["delete", failure_id]
        case DeliveryEnded(failure_id, None):
            return ["accepted", failure_id]
        case DeliveryEnded(failure_id, error, next_delivery_s):
            return ["refused", failure_id, error or "", next_delivery_s]
        case RenameMapping(old, new):
            return ["rename", old, new]
        case Holds() | OwnsEvent() | Unchanged():
            return []
    assert_never(change)


def erasure_arguments(erasures: Sequence[Erasure], places: dict[int, str]) -> list[Argument]:
    """Write erasures as arguments of ERASE; `places` as for `change_arguments`."""
    arguments: list[Argument] = []
    for index, erasure in enumerate(erasures):
        entry, event = erasure.entry, erasure.event
        fields: list[Argument] = []
        if entry is not None:
            fields = [*_told(entry), "size", 0 if event is None else len(event)]
            fields += [] if event is None else _event(event, places.get(index))
        arguments += [erasure.id, erasure.failed_at_s, key_digest(erasure.key), len(fields), *fields]
    return arguments


def key_digest(key: bytes) -> str:
    """Give what stands for an ordering key in names."""
    return hashlib.blake2b(key, digest_size=KEY_DIGITS // 2).hexdigest()


def _kept(entry: FailureEntry, event: bytes, place: str | None) -> list[Argument]:
    batch = entry.batch
    fields: list[Argument] = [
        *("mapping", batch.mapping, "shard", batch.shard, "at", repr(batch.failed_at_s), "status", entry.status),
        *("undelivered", int(entry.destination is not None), "size", len(event), "deliveries", entry.deliveries),
        *("next_delivery_s", repr(entry.next_delivery_s)),
        *_told(entry),
        *_event(event, place),
    ]
    if entry.destination is not None:
        fields += ["destination", entry.destination]
    if entry.delivery_error is not None:
        fields += ["delivery_error", entry.delivery_error]
    return fields


def _told(entry: FailureEntry) -> list[Argument]:
    """Give what an erasure changes, but for the event."""
    batch, info = msgspec.json.encode(entry.batch), msgspec.json.encode(entry.batch_info)
    return ["batch", batch, "info", info, "error", _searched(entry.batch)]


def _searched(batch: FailedBatch) -> str:
    """Give the text that `Selection.error` looks into."""
    return f"{batch.error.error_type}\n{batch.error.message}".casefold() if batch.error else ""


def _event(event: bytes, place: str | None) -> list[Argument]:
    return ["event", pack(event)] if place is None else ["place", place]


def pack(event: bytes) -> bytes:
    """Make an event small: a letter that says how it is written, then it."""
    packed = zlib.compress(event, 1)
    return b"z" + packed if len(packed) < len(event) else b"-" + event


def unpack(packed: bytes) -> bytes:
    """Read back what `pack` made."""
    return zlib.decompress(packed[1:]) if packed[:1] == b"z" else packed[1:]
