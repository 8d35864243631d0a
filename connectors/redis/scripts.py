"""How scripts of a fleet begin, and what it keeps in Redis.

Each script is one step: all that it changes is changed, or nothing is. It begins by comparing whom the caller takes the
fleet for with who it is by now: where Redis was emptied or replaced meanwhile, nothing is read or written.

What is kept, behind `headrace:{FLEET}:`

- `meta`: hash; `born`, `format`, `lost`; of mappings that have begun `state:NAME` (how many texts it has), `gone:NAME`
  (its texts were lost, and nobody has decided yet) and `decided:NAME`
- `ended`: sorted set; mappings without texts, by when that was seen first, seconds by the clock of Redis
- `states:NAME`: hash of the texts of a mapping
- `failure:ID`: hash, all of one failure with its event
- `by:MAPPING:STATUS`, `all:STATUS`, `undelivered:MAPPING`, `key:DIGEST`: sorted sets of failure ids, by failed_at
- `totals`: hash; `f:STATUS:MAPPING`, `u:...` and `b:...` (failures, undelivered ones, bytes of events), and `stored`
- `code:SHA256`, `codes`: archives of functions' code, see archives.py
- `event:ID`: hash, all of one asynchronous event; `line:REPLICA:LINE`: sorted set of event ids, by due time;
  `lines:REPLICA`: hash, how many events are in each line; `inboxes`: hash, how many each replica has
- `leases`: hash, see rows.py; what else the table of leases is: table_scripts.py
"""

from __future__ import annotations

from typing import Final

from connectors.redis.link import Script

#: Version of what is kept as described above.
FORMAT: Final = 1

_BEGIN: Final = """
if redis.call('HGET', KEYS[1], 'born') ~= ARGV[1] then return redis.error_reply('GONE from here') end
local prefix = ARGV[2]
local function key(...) return prefix .. table.concat({...}, ':') end
"""

#: Marks a mapping that the caller knows to have begun, of which nothing is known here: the data are from before that.
#: The mark is the id of a fleet, as where all was lost.
MISS: Final = """
local function miss(mapping)
    if redis.call('HEXISTS', KEYS[1], 'state:' .. mapping) == 0
       and redis.call('HEXISTS', KEYS[1], 'gone:' .. mapping) == 0 then
        redis.call('HSET', KEYS[1], 'gone:' .. mapping, redis.call('HGET', KEYS[1], 'born'))
    end
end
"""


def fleet_script(text: str, *, when_full: bool = False) -> Script:
    """Make a script for `RedisLink.ask`; its arguments begin at ARGV[3], and `key(part, ...)` names a key.

    `when_full`: it is run also when Redis has no memory left, as only what is small may be.
    """
    return Script(("#!lua flags=allow-oom" if when_full else "") + _BEGIN + text)
