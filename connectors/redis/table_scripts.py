"""What the table of leases is in Redis, and the scripts that change it, each in one step.

| key | holds |
|---|---|
| `leases` | hash: lease by mapping and shard (rows.py) |
| `changed` | sorted set: the fields of `leases`, by the version at which each was changed last |
| `gone` | the same for fields that are not in `leases` any more |
| `versions` | sorted set: the last versions that there were, by themselves |
| `replicas` | hash: JSON array of name, incarnation, beat, load, draining, digest of `runs` and its lease, by name |
| `homes` | hash: JSON array of home, time of joining and place, by name of the replica |
| `abouts` | hash: text about a replica, by its name |
| `runs` | hash: JSON array of mappings, by its digest: replicas that run the same share one |
| `table` | hash: `seq`, which counts tokens and versions, `version` and `steered` |
| `inbox:NAME:INCARNATION` | stream: what one incarnation of a replica is asked and answered (peers.py) |

Tokens and versions are a counter that ends in random bits. A Redis that comes back with older data (its last second was
not on the disk, or had not reached its replica) counts on from an older number: a token of what it forgot is then not
given out again, and a version of that time is none that it knows, so that the one who knew it is told the whole table.

What changes the table may do so when Redis has no memory left (`allow-oom`): it is small, and replicas that could not
say that they live would lose what they own.
"""

from __future__ import annotations

from typing import Final

from connectors.redis.link import Script
from connectors.redis.scripts import fleet_script

#: So many versions back it is known what has changed since.
VERSIONS: Final = 4096
#: Entries in an inbox at most.
INBOX: Final = 1000

# All scripts are told first who asks, and random bits.
_COMMON: Final = (
    """
local leases, changed, gone, versions, tab = key('leases'), key('changed'), key('gone'), key('versions'), key('table')
local replicas, homes, abouts, runs = key('replicas'), key('homes'), key('abouts'), key('runs')
local us, incarnation, chance = ARGV[3], ARGV[4], tonumber(ARGV[5])

local function row_of(name)
  local row = redis.call('HGET', replicas, name)
  return row and cjson.decode(row)
end

local function number()
  return redis.call('HINCRBY', tab, 'seq', 1) * 65536 + chance
end

local now_ms
local function now()
  if not now_ms then
    local time = redis.call('TIME')
    now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return now_ms
end

local version
local function change(field)
  if not version then
    version = number()
    local text = string.format('%.0f', version)
    redis.call('HSET', tab, 'version', text)
    redis.call('ZADD', versions, text, text)
    redis.call('ZREMRANGEBYRANK', versions, 0, -"""
    + str(VERSIONS + 1)
    + """)
    redis.call('ZREMRANGEBYSCORE', gone, '-inf', '(' .. redis.call('ZRANGE', versions, 0, 0)[1])
  end
  return string.format('%.0f', version)
end

-- cjson would write large numbers with 14 digits
local function put(field, token, owner, heir, load, since_ms, finished)
  redis.call('HSET', leases, field, string.format('[%.0f,%s,%s,%.17g,%.0f,%s]', token, cjson.encode(owner),
    cjson.encode(heir), load, since_ms, finished and 'true' or 'false'))
  local at = change()
  redis.call('ZADD', changed, at, field)
  redis.call('ZREM', gone, field)
end

local function lease_of(field)
  local lease = redis.call('HGET', leases, field)
  return lease and cjson.decode(lease)
end

local function inbox_of(name, row)
  return key('inbox', name, row[2])
end

local function nudge(name)
  local row = row_of(name)
  if row then redis.call('XADD', inbox_of(name, row), 'MAXLEN', '~', """
    + str(INBOX)
    + """, '*', 'k', 'nudge') end
end

local function settle(home, place)
  redis.call('HSET', homes, us, string.format('[%s,%.0f,%s]', cjson.encode(home), now(), cjson.encode(place)))
end

-- of a replica that runs something else by now, or is no more
local function drop_runs(digest)
  if digest == '' then return end
  local rows = redis.call('HVALS', replicas)
  for _, row in ipairs(rows) do
    if cjson.decode(row)[6] == digest then return end
  end
  redis.call('HDEL', runs, digest)
end

local function remove(name, row)
  redis.call('HDEL', replicas, name)
  redis.call('HDEL', homes, name)
  redis.call('HDEL', abouts, name)
  redis.call('UNLINK', inbox_of(name, row))
  drop_runs(row[6])
  local all, owned = redis.call('HGETALL', leases), ',' .. cjson.encode(name) .. ','
  for at = 1, #all, 2 do
    if string.find(all[at + 1], owned, 1, true) then
      local lease = cjson.decode(all[at + 1])
      if lease[2] == name then put(all[at], number(), '', '', lease[4], now(), lease[6]) end
    end
  end
end
"""
)


def _table_script(text: str) -> Script:
    return fleet_script(_COMMON + text, when_full=True)


#: More arguments: home, its place, and incarnation and beat of a row that may be replaced whatever its home, or two
#: empty ones. Gives 'joined', the beat to count on from and the incarnation before, if any; or 'taken', and place, time
#: of joining, incarnation, beat and lease of the one that has our name.
JOIN: Final = _table_script(
    """
local home, place, dead, dead_beat = ARGV[6], ARGV[7], ARGV[8], tonumber(ARGV[9])
local row, beat, before = row_of(us), 0, ''
if row and row[2] == incarnation then return {'joined', row[3], before} end
if row then
  local other = cjson.decode(redis.call('HGET', homes, us))
  if other[1] ~= home and not (row[2] == dead and row[3] == dead_beat) then
    return {'taken', other[3], string.format('%.0f', other[2]), row[2], row[3],
      string.format('%.17g', row[7] or 0)}
  end
  beat, before = row[3] + 1, row[2]
  redis.call('UNLINK', inbox_of(us, row))
end
redis.call('HSET', replicas, us, string.format('[%s,%s,%.0f,0,false,""]', cjson.encode(us),
  cjson.encode(incarnation), beat))
settle(home, place)
if row then drop_runs(row[6]) end
return {'joined', beat, before}
"""
)

# Rows and fields of leases are JSON: what is put together of them is read in one go. Joined in pieces, since Lua copies
# what it has joined again and again.
_ANSWER: Final = """
local function joined(texts)
  local pieces = {}
  for at = 1, #texts, 200 do
    pieces[#pieces + 1] = table.concat(texts, ',', at, math.min(at + 199, #texts))
  end
  return pieces
end

-- fields and values of what has changed since
local function told(known, version)
  if not known then return redis.call('HKEYS', leases), redis.call('HVALS', leases) end
  if known == version then return {}, {} end
  local fields, values = redis.call('ZRANGEBYSCORE', changed, '(' .. known, '+inf'), {}
  for first = 1, #fields, 1000 do
    local last = math.min(first + 999, #fields)
    for _, value in ipairs(redis.call('HMGET', leases, unpack(fields, first, last))) do
      values[#values + 1] = value
    end
  end
  for _, field in ipairs(redis.call('ZRANGEBYSCORE', gone, '(' .. known, '+inf')) do
    fields[#fields + 1], values[#values + 1] = field, 'null'
  end
  return fields, values
end

-- the lists of mappings of which the one who asks does not know the digests
local function lists(known)
  local digests, answer = redis.call('HKEYS', runs), {}
  for _, digest in ipairs(digests) do
    if not string.find(known, digest, 1, true) then
      answer[#answer + 1], answer[#answer + 2] = digest, redis.call('HGET', runs, digest)
    end
  end
  return answer
end
"""

#: More arguments: incarnation before, home, its place, our row, digest of `runs` and the list itself or nothing, the
#: text about us or nothing, the digests known, the version known; then how many gives, and field, token, heir, load and
#: finished of each; marks: field, token, heir, load; takes: field, token, beat of the dead or nothing; buries: name,
#: beat; forgets: field.
#: Gives 'replaced'; 'late' when a later one overtook it; or 'heard', is our row new, version, whole, steered; a list of
#: what was taken (field, token, text); pieces of JSON arrays of the fields of changed leases, of their values
#: (null = gone) and of all replicas; and a list of lists of mappings (digest, list).
EXCHANGE: Final = _table_script(
    _ANSWER
    + """
-- Are texts of a mapping gone, so that where its shards are must be decided first? Who decides takes a pseudo-shard.
local function lost(mapping, shard)
  if shard:sub(1, 1) == '@' then return false end
  if redis.call('HEXISTS', KEYS[1], 'gone:' .. mapping) == 1 then return true end
  return redis.call('HLEN', key('states', mapping)) ~= tonumber(redis.call('HGET', KEYS[1], 'state:' .. mapping) or 0)
end

local before, home, place, row = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local digest, list, about, digests, known, at = ARGV[10], ARGV[11], ARGV[12], ARGV[13], ARGV[14], 15
local function argument()
  at = at + 1
  return ARGV[at - 1]
end

local ours = row_of(us)
if ours and ours[2] ~= incarnation and ours[2] ~= before then return {'replaced'} end
if ours and ours[2] == incarnation and ours[3] > cjson.decode(row)[3] then return {'late'} end
redis.call('HSET', replicas, us, row)
if not ours or ours[2] ~= incarnation then
  settle(home, place)
end
if list ~= '' then redis.call('HSET', runs, digest, list) end
if ours and ours[6] ~= digest then drop_runs(ours[6]) end
if about ~= '' then redis.call('HSET', abouts, us, about) end

for _ = 1, tonumber(argument()) do
  local field, token, heir, load, finished = argument(), tonumber(argument()), argument(), argument(), argument()
  local lease = lease_of(field)
  if lease and lease[1] == token and lease[2] == us then
    if finished == '1' then heir = '' end
    put(field, number(), '', heir, tonumber(load), now(), finished == '1')
    if heir ~= '' then nudge(heir) end
  end
end

for _ = 1, tonumber(argument()) do
  local field, token, heir, load = argument(), tonumber(argument()), argument(), argument()
  local lease = lease_of(field)
  if lease and lease[1] == token and lease[2] == us then
    put(field, token, us, heir, tonumber(load), lease[5], false)
  end
end

local taken = {}
for _ = 1, tonumber(argument()) do
  local field, token, dead_beat = argument(), tonumber(argument()), tonumber(argument())
  local lease = lease_of(field) or {0, '', '', 0, 0, false}
  local may = lease[1] == token and not lease[6]
  if may and lease[2] ~= '' and lease[2] ~= us then
    local owner = row_of(lease[2])
    may = owner and owner[3] == dead_beat
  end
  if may and lost(unpack(cjson.decode(field))) then may = false end
  if may then
    local new, part = number(), cjson.decode(field)
    put(field, new, us, '', lease[4], lease[2] == us and lease[5] or now(), false)
    taken[#taken + 1], taken[#taken + 2] = field, string.format('%.0f', new)
    taken[#taken + 1] = redis.call('HGET', key('states', part[1]), 'shard:' .. part[2]) or ''
  end
end

for _ = 1, tonumber(argument()) do
  local name, beat = argument(), tonumber(argument())
  local other = row_of(name)
  if other and name ~= us and other[3] == beat then remove(name, other) end
end

for _ = 1, tonumber(argument()) do
  local field = argument()
  local lease = lease_of(field)
  if lease and lease[2] == '' then
    redis.call('HDEL', leases, field)
    redis.call('ZREM', changed, field)
    redis.call('ZADD', gone, change(), field)
  end
end

local state = redis.call('HMGET', tab, 'version', 'steered')
local at_version = state[1] or '0'
if known == '0' or not redis.call('ZSCORE', versions, known) then known = nil end
local is_new = (not ours or redis.call('HEXISTS', runs, digest) == 0) and 1 or 0
local fields, values = told(known, at_version)
return {'heard', is_new, at_version, known and 0 or 1, state[2] or '0', taken, joined(fields), joined(values),
  joined(redis.call('HVALS', replicas)), lists(digests)}
"""
)

#: Gives the same as EXCHANGE, of the whole table.
LOOK: Final = _table_script(
    _ANSWER
    + """
local state = redis.call('HMGET', tab, 'version', 'steered')
local fields, values = told()
return {'heard', 0, state[1] or '0', 1, state[2] or '0', {}, joined(fields), joined(values),
  joined(redis.call('HVALS', replicas)), lists('')}
"""
)

#: One more argument: the text about us. Passed over where our row is not there.
DESCRIBE: Final = _table_script(
    """
local row = row_of(us)
if row and row[2] == incarnation then redis.call('HSET', abouts, us, ARGV[6]) end
return {'described'}
"""
)

STEERED: Final = _table_script(
    """
redis.call('HINCRBY', tab, 'steered', 1)
for _, name in ipairs(redis.call('HKEYS', replicas)) do nudge(name) end
return {'steered'}
"""
)

LEAVE: Final = _table_script(
    """
local row = row_of(us)
if row and row[2] == incarnation then remove(us, row) end
return {'left'}
"""
)

#: More arguments: who is asked, id of the call, what, body. Gives 'asked' and its incarnation and beat; or 'nobody',
#: or 'busy' when too much waits for it.
ASK: Final = _table_script(
    """
local name = ARGV[6]
local row = row_of(name)
if not row then return {'nobody'} end
local inbox = inbox_of(name, row)
if redis.call('XLEN', inbox) >= """
    + str(INBOX)
    + """ then return {'busy'} end
redis.call('XADD', inbox, '*', 'k', 'call', 'by', us, 'of', incarnation,
  'id', ARGV[7], 'what', ARGV[8], 'body', ARGV[9])
return {'asked', row[2], row[3]}
"""
)

#: More arguments: who asked, its incarnation, id of the call, body. Passed over when that incarnation is gone.
ANSWER: Final = _table_script(
    """
local row = row_of(ARGV[6])
if row and row[2] == ARGV[7] then
  redis.call('XADD', inbox_of(ARGV[6], row), '*', 'k', 'answer', 'id', ARGV[8], 'body', ARGV[9])
end
return {'answered'}
"""
)
