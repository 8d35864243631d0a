"""What a Redis must be like to keep the state of a fleet, and what is asked of it now and then.

Refused: a version without what we use; a policy that may throw our keys away; a user without rights to a command that a
script would need in its middle. Told: settings with which what was acknowledged may be lost, and memory that ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from connectors.redis import archives, inbox_scripts, reading, table_scripts, writing
from connectors.redis.link import RedisLink, Script
from connectors.redis.scripts import fleet_script
from router.errors import StoreUnavailable
from router.ports import Finding, StoreHealth

#: Scripts are refused at once where rights lack, and functions of newer ones are used.
OLDEST: Final = (7, 0)
#: Memory in use is told of from this part of `maxmemory` on.
NEARLY_FULL: Final = 0.9

_CALLED: Final = re.compile(r"redis\.call\('([A-Z]+)'")
#: Called beside scripts.
_BESIDE: Final = ("EVAL", "EVALSHA", "HGETALL", "HGET", "HMGET", "INFO", "PING", "XREAD", "XTRIM")

# Redis looks at rights when a command is called: a script that is refused one in its middle has written half of it.
_LACKING: Final = Script("""
local lacking = {}
for _, name in ipairs(ARGV) do
    if not redis.acl_check_cmd(name, KEYS[1], KEYS[1], KEYS[1]) then lacking[#lacking + 1] = name end
end
return lacking
""")

#: Mappings without texts are remembered for so long, seconds: a replica that had noted one and comes back then would
#: miss it, and ask.
_ENDED_S: Final = 30 * 24 * 3600

# Gives mappings whose texts are gone, those that have some, and those that have none any more; forgets some of these.
_BEGUN: Final = fleet_script(
    f"""
local gone, begun, ended, all = {{}}, {{}}, {{}}, redis.call('HGETALL', KEYS[1])
local now, since = tonumber(redis.call('TIME')[1]), {{}}
local known = redis.call('ZRANGE', key('ended'), 0, -1, 'WITHSCORES')
for i = 1, #known, 2 do since[known[i]] = tonumber(known[i + 1]) end
for i = 1, #all, 2 do
    local what, name = all[i]:match('^(%l+):(.*)$')
    if what == 'gone' then
        gone[#gone + 1] = name
    elseif what == 'state' then
        local has = redis.call('HLEN', key('states', name))
        if has ~= tonumber(all[i + 1]) then gone[#gone + 1] = name end
        if has > 0 or all[i + 1] ~= '0' then
            begun[#begun + 1] = name
        else
            ended[#ended + 1] = name
            if not since[name] then
                redis.call('ZADD', key('ended'), now, name)
            elseif now - since[name] > {_ENDED_S} then
                redis.call('HDEL', KEYS[1], all[i])
                redis.call('ZREM', key('ended'), name)
            end
            since[name] = nil
        end
    end
end
for name in pairs(since) do redis.call('ZREM', key('ended'), name) end
return {{gone, begun, ended}}
""",
    when_full=True,
)


async def lacking_rights(link: RedisLink) -> Sequence[str]:
    """Name the commands that we need and may not run. Raises StoreUnavailable: scripts may not be run at all."""
    lacking: list[bytes] = await link.run(_LACKING, [link.key("meta")], needed_commands())
    return [each.decode() for each in lacking]


def needed_commands() -> Sequence[str]:
    """Name all commands that we call, in scripts and beside them."""
    scripts = [
        value.text
        for module in (archives, inbox_scripts, reading, table_scripts, writing)
        for value in vars(module).values()
        if isinstance(value, Script)
    ]
    return sorted({name for text in [*scripts, _BEGUN.text] for name in _CALLED.findall(text)} | set(_BESIDE))


async def look_at(link: RedisLink, *, power_safe: bool) -> StoreHealth:
    """See how Redis is, but for what is gone of the fleet.

    Raises:
        StoreUnavailable: it cannot be asked.
    """
    info = _facts(await link.command("INFO")) | await _settings(link)
    if findings := list(_unusable(info)):
        return StoreHealth(findings, run_id=info.get("run_id", ""))
    if lacking := await lacking_rights(link):
        text = f"its ACL refuses {', '.join(lacking)}; give the user that right (`ACL SETUSER`)"
        findings.append(Finding("rights", text, is_refused=True))
    findings += _persistence(info, power_safe=power_safe)
    findings += _memory(info)
    return StoreHealth(findings, run_id=info.get("run_id", ""))


async def begun_mappings(link: RedisLink) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Name the mappings whose texts are gone, all that have some, and all that have none any more.

    Raises StoreUnavailable.
    """
    gone, begun, ended = (frozenset(each.decode() for each in names) for names in await link.ask(_BEGUN))
    return gone, begun, ended


async def _settings(link: RedisLink) -> dict[str, str]:
    """Ask for what `INFO` does not tell; where that may not be asked, nothing."""
    try:
        return dict(reading.by_name(await link.command("CONFIG", "GET", "appendfsync")))
    except StoreUnavailable:
        return {}


def _facts(info: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in info.items()}


def _unusable(info: Mapping[str, str]) -> Iterable[Finding]:
    version = tuple(int(part) for part in info.get("redis_version", "0.0").split(".")[:2])
    if version < OLDEST:
        text = f"it is Redis {info.get('redis_version')}; a fleet needs Redis 7.0 or newer"
        yield Finding("version", text, is_refused=True)
    policy = info.get("maxmemory_policy", "")
    if policy.startswith("allkeys"):
        text = (
            f"its maxmemory-policy is {policy}, with which it may throw away what was kept; set it to noeviction "
            "(`CONFIG SET maxmemory-policy noeviction`, and in redis.conf)"
        )
        yield Finding("eviction", text, is_refused=True)


def _persistence(info: Mapping[str, str], *, power_safe: bool) -> Iterable[Finding]:
    if info.get("aof_enabled") != "1":
        text = (
            "it writes no append-only file, so what was kept since its last snapshot is gone when it stops; set "
            "`appendonly yes`"
        )
        yield Finding("persistence", text)
    elif power_safe and "appendfsync" not in info:
        text = (
            "whether it waits for its disk cannot be seen, because CONFIG GET is refused; it must have "
            "`appendfsync always`, or the file says `durability: kill`"
        )
        yield Finding("persistence", text)
    elif power_safe and info["appendfsync"] != "always":
        text = (
            f"its appendfsync is {info['appendfsync']}, so the last of what was kept may be gone after a loss of "
            "power; set `appendfsync always`, or say in the file that this is enough (`durability: kill`)"
        )
        yield Finding("persistence", text)
    if info.get("aof_last_write_status", "ok") != "ok" or info.get("aof_last_bgrewrite_status", "ok") != "ok":
        yield Finding("persistence", "it could not write its append-only file; look at its log, its disk and its space")


def _memory(info: Mapping[str, str]) -> Iterable[Finding]:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if limit and used > NEARLY_FULL * limit:
        text = (
            f"its memory is used to {used / limit:.0%} of maxmemory ({limit >> 20} MiB); raise that, or drop failures: "
            "when it is full nothing is kept, and the mappings hold"
        )
        yield Finding("memory", text)
