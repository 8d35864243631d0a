"""The scripts that read the store, and what they answer as values of the Store port."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from connectors.redis.link import Argument
from connectors.redis.scripts import MISS, fleet_script
from connectors.redis.writing import key_digest
from router.core.model import FailedBatch
from router.ports import Backlog, FailureEntry, Selection, Tally

STATUSES: Final = ("stored", "delivered", "replaying", "replayed", "failed_again", "dropped")
#: Failures read in one script: Redis does nothing else meanwhile.
PAGE_COUNT: Final = 500

# Gives what is lost of the texts: 1 = somebody has to decide. ARGV[4] = 1: the caller knows that it had begun.
_STATES: Final = """
local texts = redis.call('HGETALL', key('states', ARGV[3]))
local noted = tonumber(redis.call('HGET', KEYS[1], 'state:' .. ARGV[3]) or 0)
if ARGV[4] == '1' then miss(ARGV[3]) end
local gone = redis.call('HEXISTS', KEYS[1], 'gone:' .. ARGV[3])
if not ARGV[3]:find(':', 1, true) and noted * 2 ~= #texts then gone = 1 end
return {gone, texts}
"""

# Whatever is there now is all that there is of it from now on. ARGV[4] as for _STATES.
_ACCEPT: Final = """
local mapping = ARGV[3]
if ARGV[4] == '1' then miss(mapping) end
local has = redis.call('HLEN', key('states', mapping))
local noted = tonumber(redis.call('HGET', KEYS[1], 'state:' .. mapping) or 0)
local lost = redis.call('HGET', KEYS[1], 'gone:' .. mapping)
if lost then redis.call('HSET', KEYS[1], 'decided:' .. mapping, lost) end
redis.call('HDEL', KEYS[1], 'gone:' .. mapping)
redis.call('HSET', KEYS[1], 'state:' .. mapping, has)
return (lost or has ~= noted) and 1 or 0
"""

_ROWS: Final = """
local function row(id)
    local v = redis.call('HMGET', key('failure', id), 'batch', 'mapping', 'status', 'destination', 'info', 'size',
                         'deliveries', 'delivery_error', 'next_delivery_s', 'shard', 'error')
    if not v[1] then return nil end
    v[12] = id
    return v
end
"""

_FIND: Final = """
local found = {}
for i = 3, #ARGV do found[#found + 1] = row(ARGV[i]) end
return found
"""

# One page over several sorted sets, in the order of score and id, behind an id that need not be there any more.
# ARGV: limit, since, until, score and id to be behind, shard and error to look for (each = and a text, or empty),
# whether rows are wanted, then the sets. Answers: how many there are behind, whatever shard and error; score and id of
# the last one looked at; and those that are wanted.
_PAGE: Final = """
local limit, since, until_, score, after = tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local shard, error_, wants_rows = ARGV[8], ARGV[9], ARGV[10] == '1'

-- Bytes are compared as in sorted sets: Lua goes by the locale.
local function before(a, b)
    local length = math.min(#a, #b)
    for i = 1, length do
        local x, y = a:byte(i), b:byte(i)
        if x ~= y then return x < y end
    end
    return #a < #b
end

local function first(set)
    local at = 0
    if since ~= '' then at = redis.call('ZCOUNT', set, '-inf', '(' .. since) end
    if score == '' then return at end
    local low, high = redis.call('ZCOUNT', set, '-inf', '(' .. score), redis.call('ZCOUNT', set, '-inf', score)
    while low < high do
        local middle = math.floor((low + high) / 2)
        if before(after, redis.call('ZRANGE', set, middle, middle)[1]) then high = middle else low = middle + 1 end
    end
    return math.max(at, low)
end

local total, all = 0, {}
for i = 11, #ARGV do
    local set = prefix .. ARGV[i]
    local from, to = first(set), nil
    if until_ == '' then to = redis.call('ZCARD', set) else to = redis.call('ZCOUNT', set, '-inf', '(' .. until_) end
    if to > from then
        total = total + to - from
        if limit > 0 then
            local ids = redis.call('ZRANGE', set, from, math.min(to, from + limit) - 1, 'WITHSCORES')
            for j = 1, #ids, 2 do all[#all + 1] = {ids[j], ids[j + 1], tonumber(ids[j + 1])} end
        end
    end
end
if limit == 0 then return {total, '', '', {}} end
table.sort(all, function(a, b) if a[3] ~= b[3] then return a[3] < b[3] end return before(a[1], b[1]) end)
local found, last = {}, {'', ''}
for i = 1, math.min(limit, #all) do
    last = all[i]
    local v = row(last[1])
    if v and (shard == '' or '=' .. v[10] == shard) and (error_ == '' or v[11]:find(error_:sub(2), 1, true)) then
        found[#found + 1] = wants_rows and v or last[1]
    end
end
return {total, last[2], last[1], found}
"""

STATES_OF: Final = fleet_script(MISS + _STATES, when_full=True)
SOME_STATES: Final = fleet_script("return redis.call('HMGET', key('states', ARGV[3]), unpack(ARGV, 4))")
ACCEPT: Final = fleet_script(MISS + _ACCEPT)
FIND: Final = fleet_script(_ROWS + _FIND)
PAGE: Final = fleet_script(_ROWS + _PAGE)
EVENT: Final = fleet_script("return redis.call('HMGET', key('failure', ARGV[3]), 'event', 'place')")
TOTALS: Final = fleet_script("return redis.call('HGETALL', key('totals'))")


def sets(selection: Selection) -> list[str]:
    """Name the sorted sets that a selection without ids is read along."""
    if selection.key is not None:
        return [f"key:{key_digest(selection.key)}"]
    of = "all" if selection.mapping is None else f"by:{selection.mapping}"
    return [f"{of}:{status}" for status in dict.fromkeys(selection.statuses or STATUSES)]


def page_arguments(
    selection: Selection,
    along: Sequence[str],
    limit: int,
    behind: tuple[str | float, str] | None,
    *,
    wants_rows: bool,
) -> list[Argument]:
    """Write a question for a page as arguments of PAGE."""
    score, after = ("", "") if behind is None else behind
    return [
        limit,
        "" if selection.since_s is None else repr(selection.since_s),
        "" if selection.until_s is None else repr(selection.until_s),
        score if isinstance(score, str) else repr(score),
        after,
        "" if selection.shard is None else f"={selection.shard}",
        "" if selection.error is None else f"={selection.error.casefold()}",
        int(wants_rows),
        *along,
    ]


def entry(row: Sequence[Any]) -> FailureEntry:
    """Read a row."""
    packed, mapping, status, destination, info, size, deliveries, delivery_error, next_delivery_s = row[:9]
    batch = msgspec.json.decode(packed, type=FailedBatch)
    name = mapping.decode()
    return FailureEntry(
        batch if batch.mapping == name else replace(batch, mapping=name),  # it was renamed since
        status.decode(),
        _text(destination),
        msgspec.json.decode(info),
        (),
        int(size),
        int(deliveries),
        _text(delivery_error),
        float(next_delivery_s),
    )


def is_selected(found: FailureEntry, selection: Selection, error: bytes) -> bool:
    """Does a failure hold in every field that its page was not read by? `error` is the text that is looked into."""
    batch = found.batch
    return (
        (not selection.ids or batch.id in selection.ids)
        and selection.mapping in (None, batch.mapping)
        and selection.shard in (None, batch.shard)
        and (not selection.statuses or found.status in selection.statuses)
        and (selection.since_s is None or selection.since_s <= batch.failed_at_s)
        and (selection.until_s is None or batch.failed_at_s < selection.until_s)
        and (selection.after is None or (batch.failed_at_s, batch.id) > selection.after)
        and (selection.error is None or selection.error.casefold().encode() in error)
    )


def tallies(answer: Sequence[bytes]) -> list[Tally]:
    """Read all totals."""
    totals = _by_name(answer)
    names = sorted((mapping, status) for what, status, mapping in map(_parts, totals) if what == "f")
    return [
        Tally(mapping, status, totals[f"f:{status}:{mapping}"], totals.get(f"u:{status}:{mapping}", 0))
        for mapping, status in names
    ]


def backlog(answer: Sequence[bytes], mapping: str) -> Backlog:
    """Read the totals of one mapping."""
    sums = {"f": 0, "u": 0, "b": 0}
    for name, value in _by_name(answer).items():
        what, _, of = _parts(name)
        if of == mapping and what in sums:
            sums[what] += value
    return Backlog(sums["u"], sums["b"], sums["f"])


def by_name(flat: Sequence[bytes]) -> Mapping[str, str]:
    """Read a hash of texts."""
    return {name.decode(): text.decode() for name, text in _pairs(flat)}


def _by_name(flat: Sequence[bytes]) -> dict[str, int]:
    return {name.decode(): int(value) for name, value in _pairs(flat)}


def _pairs(flat: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    each = iter(flat)
    return zip(each, each, strict=True)


def _parts(name: str) -> tuple[str, str, str]:
    """Take the name of a total apart: what is counted, status, mapping."""
    what, _, rest = name.partition(":")
    status, _, mapping = rest.partition(":")
    return what, status, mapping


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()
