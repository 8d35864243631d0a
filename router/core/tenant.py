"""What one replica of a fleet does about the leases: takes, keeps, gives and loses them.

Facts in, commands out. There is one exchange with the table at a time, about ten in the length of a lease; it says that
we live, and carries what we take and give. What happens while one is under way is said by the next, which follows at
once if somebody waits for it.

Safety rests on two rules. A lease is ours until `lease_s`, less a margin, after the *sending* of the last exchange that
was answered: then everything is lost, by our own clock and without asking. And nobody takes from us before our beat has
stood still for `lease_s` by their clock, counted from when they *read* it (liveness.py), which is later. What is
written with a token that is not the newest is refused by the table; this is for clocks and machines that break the
rules. Sources: Gray and Cheriton 1989 (leases), Kleppmann 2016 (fencing tokens).

What was asked for in an exchange without an answer may have happened. Nothing is remembered of it: the next answer says
how things are. A row that has us as owner while we do not hold it (an answer that came too late, a former process of
ours) is taken anew, with a new token, before it is used.

Weak spot: a replica that is stopped after it has looked at its clock, and before it writes to somebody who asks for no
token, such as a handler's own database, is not stopped by this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Final, assert_never

from router.core import fleet as f
from router.core.fleet import Heard, LeaseKey, part
from router.core.holdings import Holdings
from router.core.lease_rows import LeaseRows
from router.core.liveness import Liveness
from router.core.openings import Openings
from router.core.plan import UNITS, Weighed, assign, level, rendezvous, weigh

if TYPE_CHECKING:
    from random import Random

#: Exchanges in the length of a lease, unless that makes them rarer or more frequent than this.
EXCHANGES: Final = 10
TICK_S: Final = (0.2, 1.0)
#: Exchanges of replicas that were started together come apart: each tick is shorter by up to this share.
JITTER_SHARE: Final = 0.1
#: Exchanges follow each other no faster, however much there is to say.
PAUSE_S: Final = 0.02
#: How long before others may take our leases we lose them ourselves: time to end what runs. At most, and of the lease.
MARGIN_S: Final = 2.0
MARGIN_SHARE: Final = 0.2
#: Ticks for which a lease is left to whom it is meant for, before the next one may take it too.
PATIENCE_TICKS: Final = 3
#: Ticks that a replica has to live before others give it something: one that falls over at once gets nothing.
SETTLING_TICKS: Final = 3
#: A replica that was not heard of for so many ticks is given nothing until it is: it may be dead.
SILENT_TICKS: Final = 3
#: A replica that is dead for so many leases is taken out of the table.
BURIAL_LEASES: Final = 10
#: A lease that was given to us is not given on for so long.
GIVEN_RESTS_LEASES: Final = 1
#: Who did not take what was meant for it gets nothing of that mapping for so long: it may not know of the shard yet.
REFUSED_LEASES: Final = 5
#: Takes or gives of one exchange: the table serves nobody else meanwhile.
AT_ONCE: Final = 256
#: Leases that one replica gives away at once: this many, or this part of what it has, up to so many. Each of them
#: rests for the time it takes to drain it.
MOVES: Final = 2
MOVES_SHARE: Final = 20
MOVES_MOST: Final = 32


class Tenant:
    """One replica's part of the table. Ends with Ousted: it says nothing after that."""

    def __init__(self, name: str, lease_s: float, rng: Random) -> None:
        self.name = name
        self.lease_s = lease_s
        #: Between exchanges of which nobody waits for, at most.
        self.tick_s = min(max(lease_s / EXCHANGES, TICK_S[0]), TICK_S[1])
        #: Monotonic time at which all that is ours is lost, unless an exchange is confirmed before; infinite = nothing.
        self.expires_s = inf
        #: The table as last heard, and who lives.
        self.leases = LeaseRows()
        self.liveness = Liveness(lease_s, SILENT_TICKS * self.tick_s)
        #: When the table was last heard; None = never.
        self.heard_s: float | None = None
        #: Why it does not answer; empty = it does.
        self.trouble = ""
        self.is_draining = False
        self._rng = rng
        self._valid_s = lease_s - min(MARGIN_S, lease_s * MARGIN_SHARE)
        self._holdings = Holdings(name, self.leases)
        self._openings = Openings(name, self.leases, self.liveness, PATIENCE_TICKS * self.tick_s, lease_s)
        self._forgotten: dict[LeaseKey, None] = {}
        #: Wishes, by mapping.
        self._mappings: Counter[str] = Counter()
        self._runs: frozenset[str] = frozenset()
        #: What the table knows of that.
        self._told: frozenset[str] | None = None
        #: Who takes up what a dead replica had begun, by its name.
        self._adopters: dict[str, str] = {}
        #: What `members` gave last, and what it depends on.
        self._members: dict[str, frozenset[str]] = {}
        self._members_seen: tuple[int, frozenset[str], bool] | None = None
        self._is_out = False
        self._beat = 0
        self._version = 0
        self._steered = 0
        #: What is under way; None = nothing.
        self._said: f.Said | None = None
        #: When that, or the one before, was sent, and when the next is due.
        self._sent_s = self._next_s = -inf
        #: Up to when what is ours is ours, if anything is.
        self._valid_until_s = -inf
        #: Does somebody wait for what we have to say?
        self._is_urgent = False
        #: What is to be taken, and what of it the last exchange asked for.
        self._takes: list[f.Take] = []
        self._tried: frozenset[f.Take] = frozenset()
        #: What of that was meant for others.
        self._helped: dict[LeaseKey, str] = {}
        #: Until when a replica is offered nothing of a part, since it did not take what was meant for it.
        self._refused: dict[tuple[str, str], float] = {}
        #: How many leases that nobody has had before were asked for, and since when.
        self._pace_s, self._paced_count = -inf, 0
        #: When the loads may be looked at again.
        self._level_s = -inf
        #: Is there something that the plan has not seen?
        self._is_stale = True
        #: Has the table been heard since the loads were looked at?
        self._is_fresh = False
        self._is_levelling = False
        self._wake_s = inf
        self._out: list[f.TenantCommand] = []

    # --- what is ours

    def held(self) -> Mapping[LeaseKey, int]:
        """Give the tokens of what is ours, by lease; what is released is not."""
        return self._holdings.held()

    def token(self, key: LeaseKey) -> int | None:
        """Give the token of a lease; None = it is not ours."""
        return self._holdings.token(key)

    def members(self) -> Mapping[str, frozenset[str]]:
        """Give the parts of mappings of each replica that may take leases."""
        seen = (self.liveness.version, self._runs, self.is_draining)
        if seen != self._members_seen:
            self._members_seen = seen
            self._members = {name: each.runs for name, each in self.liveness.talking.items() if not each.draining}
            if not self.is_draining:
                self._members[self.name] = self._runs
        return self._members

    # --- facts

    def feed(self, fact: f.TenantFact, now_s: float) -> list[f.TenantCommand]:
        """Take in a fact; give what is to be done, in order."""
        if self._is_out:
            return []
        self._out = []
        if isinstance(fact, f.Answered):
            self._answered(fact.sent_s, fact.heard, now_s)
        if now_s >= self.expires_s:
            self._lose_all(f"the table has not answered for {now_s - self._valid_until_s + self._valid_s:.1f} s", now_s)
        self._take_in(fact)
        if not self._is_out:
            self._go_on(now_s)
        return self._out

    def _take_in(self, fact: f.TenantFact) -> None:  # noqa: C901 - one line a fact
        match fact:
            case f.Answered():
                pass  # it came before the clock was looked at
            case f.Unanswered(error):
                self._unanswered(error)
            case f.Wished(key):
                self._wish(key)
            case f.Unwished(key):
                self._unwish(key)
            case f.Released(key, finished):
                self._release(key, finished=finished)
            case f.Measured(loads):
                self._holdings.measured(loads)
            case f.Runs(parts):
                self._runs = parts
                self._is_urgent = self._is_stale = True
            case f.Forgotten(keys):
                self._forgotten.update(dict.fromkeys(keys))
            case f.Leaving():
                self.is_draining = self._is_urgent = self._is_stale = True
            case f.Nudged():
                self._is_urgent = True
            case f.Due():
                self._wake_s = inf
            case _:
                assert_never(fact)

    def _wish(self, key: LeaseKey) -> None:
        self._openings.wish(key)
        self._mappings[key.mapping] += 1
        if self._mappings[key.mapping] == 1:
            finished = [LeaseKey(key.mapping, shard) for shard in sorted(self.leases.finished.get(key.mapping, ()))]
            shards = [each.shard for each in finished if each not in self._forgotten]
            self._out += [f.Finished(key.mapping, shards)] if shards else []
        self._is_stale = True

    def _unwish(self, key: LeaseKey) -> None:
        self._openings.unwish(key)
        self._mappings[key.mapping] -= 1
        self._is_stale = True
        self._release(key, finished=False)

    def _release(self, key: LeaseKey, *, finished: bool) -> None:
        if self._holdings.release(key, finished=finished):
            self._is_urgent = True
            self._set_expiry()

    def _set_expiry(self) -> None:
        self.expires_s = self._valid_until_s if self._holdings.is_used else inf

    def _lose_all(self, why: str, now_s: float) -> None:
        self._out += [f.Lose(key, why) for key in self._holdings.lose_all(now_s)]
        self._set_expiry()
        self._is_stale = True

    # --- answers

    def _unanswered(self, error: str) -> None:
        self._said = None
        self._is_urgent = False
        if not self.trouble:
            self._out.append(f.Note("fleet.unheard", {"error": error}))
        self.trouble = error

    def _answered(self, sent_s: float, heard: Heard, now_s: float) -> None:
        said, self._said = self._said, None
        if heard.replaced:
            self._lose_all("another process has our name", now_s)
            self._is_out = True
            self._out.append(f.Ousted())
            return
        if self.trouble:
            self._out.append(f.Note("fleet.heard", {}))
            self.trouble = ""
        self._is_fresh = True
        self._version = heard.version
        us = heard.replicas.get(self.name)
        self._told = None if us is None else us.runs
        for key in said.forgets if said else ():
            self._forgotten.pop(key, None)
        if now_s < sent_s + self._valid_s:
            self._valid_until_s = sent_s + self._valid_s
        else:  # what it confirms has run out on the way
            self._lose_all(f"the table has taken {now_s - sent_s:.1f} s to answer", now_s)
        self._hear_replicas(heard, now_s)
        self._hear_leases(heard, now_s)
        if heard.steered != self._steered:
            self._steered = heard.steered
            self._out.append(f.Steered())
        self._set_expiry()

    def _hear_replicas(self, heard: Heard, now_s: float) -> None:
        version = self.liveness.version
        others = [each for each in heard.replicas.values() if each.name != self.name]
        self.liveness.heard(others, now_s, anew=not self._is_heard(now_s))
        self.heard_s = now_s
        self._is_stale |= self.liveness.version != version

    def _hear_leases(self, heard: Heard, now_s: float) -> None:
        rests = {key: self._rest_s(key) for key in heard.taken}
        self._note_refusals(heard.taken, now_s)
        keys = self.leases.learn(heard)
        self._openings.changed(keys)
        self._is_stale |= bool(keys)
        finished: dict[str, list[str]] = {}
        for key in keys:
            row = self.leases.rows.get(key)
            if (
                row is not None
                and row.finished
                and self._mappings[key.mapping]
                and key not in self._forgotten
                and not self._holdings.is_finishing(key)
            ):
                finished.setdefault(key.mapping, []).append(key.shard)
        self._out += [f.Lose(key, why) for key, why in self._holdings.learn(keys, now_s)]
        self._out += [f.Finished(mapping, sorted(shards)) for mapping, shards in finished.items()]
        for key, taken in heard.taken.items() if now_s < self._valid_until_s else ():
            if self._holdings.hold(key, taken, now_s + rests[key]):
                if key in self._openings.wished and not self.is_draining:
                    self._out.append(f.Grant(key, taken))
                else:
                    self._release(key, finished=False)

    def _rest_s(self, key: LeaseKey) -> float:
        """Say how long a lease that we have taken is not moved on."""
        row = self.leases.rows.get(key)
        return self.lease_s * GIVEN_RESTS_LEASES if row is not None and row.heir == self.name else 0.0

    def _note_refusals(self, keys: Iterable[LeaseKey], now_s: float) -> None:
        """Remember of what we have taken for whom it was meant: that one does not want leases of this part now."""
        for key in keys:
            row = self.leases.rows.get(key)
            meant = row.heir if row is not None and row.heir else self._helped.get(key, self.name)
            if meant != self.name:
                self._refused[meant, part(key)] = now_s + self.lease_s * REFUSED_LEASES

    # --- what follows

    def _is_heard(self, now_s: float) -> bool:
        """Say whether we hear the table; if not, it may be that nobody could beat."""
        return self.heard_s is not None and now_s < self.heard_s + self.lease_s / 2

    def _go_on(self, now_s: float) -> None:
        is_heard = self._is_heard(now_s)
        died = self.liveness.pass_away(now_s) if is_heard else []
        self._is_stale |= bool(died)
        if self._is_stale:
            self._adopt(died)
        if self._said is None:
            # Thousands of wishes may come at once: they are looked at together.
            if is_heard and (self._is_fresh or now_s >= self._sent_s + PAUSE_S):
                self._plan(now_s)
            if now_s >= self._exchange_s:
                self._exchange(now_s)
        self._wake(now_s, is_heard=is_heard)

    @property
    def _exchange_s(self) -> float:
        """When the next exchange is to be."""
        return self._sent_s + PAUSE_S if self._is_urgent and not self.trouble else self._next_s

    def _wake(self, now_s: float, *, is_heard: bool) -> None:
        wake_s = self.expires_s
        if self._said is None:
            wake_s = min(wake_s, self._sent_s + PAUSE_S if self._is_stale and is_heard else self._exchange_s)
        if now_s < self.liveness.next_s:
            wake_s = min(wake_s, self.liveness.next_s)
        if wake_s < self._wake_s:
            self._wake_s = wake_s
            self._out.append(f.WakeAt(wake_s))

    def _adopt(self, died: Iterable[str]) -> None:
        """Settle who takes up what the dead had begun; anew when that one goes too."""
        members = self.members()
        before, self._adopters = self._adopters, {}
        for name in sorted(self.liveness.dead):
            former = before.get(name, "")
            adopter = former if former in members else next(iter(rendezvous(name, members)), "")
            self._adopters[name] = adopter
            if name in died or adopter == self.name != former:
                self._out.append(f.Orphaned(name, ours=adopter == self.name))

    def _plan(self, now_s: float) -> None:
        """Find what is to be taken, and given for the balance."""
        members = self.members()
        if self._is_stale:
            self._openings.look(members, now_s)
            self._is_stale = False
        takes = [] if self.is_draining else self._holdings.retaken(self._openings.wished)
        takes += self._openings.takes(members, now_s)
        self._takes = self._paced(takes, now_s)
        self._is_urgent |= any(take not in self._tried for take in self._takes)
        if self._is_fresh and now_s >= self._level_s and self.name in members:
            self._level_s = now_s + self.tick_s / 2
            if not self._openings.is_unsettled(now_s):
                self._level(members, now_s)
        self._is_fresh = False

    def _paced(self, takes: list[f.Take], now_s: float) -> list[f.Take]:
        """Leave out some of what nobody has ever had: when a fleet starts, its first replica must not have it all."""
        if now_s >= self._pace_s + self.tick_s * (1 - JITTER_SHARE):
            self._pace_s, self._paced_count = now_s, 0
        new = [take for take in takes if not take.token]
        room = AT_ONCE - self._paced_count
        return takes if len(new) <= room else [take for take in takes if take.token] + new[:room]

    def _level(self, members: Mapping[str, frozenset[str]], now_s: float) -> None:
        """Ask for those of our leases back that level the loads."""
        settled_s = SETTLING_TICKS * self.tick_s
        runs = {
            name: parts
            for name, parts in members.items()
            if name == self.name or self.liveness.is_settled(name, now_s, settled_s)
        }
        self._refused = {refused: until_s for refused, until_s in self._refused.items() if now_s < until_s}
        for name, of in self._refused:
            if name in runs:
                runs[name] -= {of}
        units = self._openings.units(runs, now_s)
        moves = level(units, runs, lambda name: self._movable(name, now_s), begun=self._is_levelling)
        self._is_levelling = bool(moves)
        at_once = min(max(MOVES, len(self._holdings) // MOVES_SHARE), MOVES_MOST)
        room = max(at_once - self._holdings.revoked_count, 0)
        for move in islice((each for each in moves if each.giver == self.name), room):
            self._holdings.revoke(move.key, move.taker)
            self._is_urgent = True
            self._level_s = now_s  # who gives goes on as fast as the others take
            self._out.append(f.Revoke(move.key, move.taker))

    def _movable(self, name: str, now_s: float) -> Iterable[Weighed]:
        leases = self.leases.movable(name)
        return leases if name != self.name else [each for each in leases if self._holdings.may_move(each.key, now_s)]

    # --- the next exchange

    def _exchange(self, now_s: float) -> None:
        takes = self._takes[:AT_ONCE]
        self._tried, self._helped = frozenset(takes), self._openings.helped
        self._paced_count += sum(not take.token for take in takes)
        self._beat += 1
        self._said = f.Said(
            beat=self._beat,
            load=self.leases.units.get(self.name, 0) / UNITS,
            draining=self.is_draining,
            runs=None if self._runs == self._told else self._runs,
            known=self._version,
            takes=takes,
            gives=self._gives(now_s),
            marks=self._holdings.marks(),
            buries=self._buries(now_s),
            forgets=list(islice(self._forgotten, AT_ONCE)),
        )
        self._is_urgent = len(self._takes) > AT_ONCE or self._holdings.released_count > AT_ONCE
        self._sent_s = now_s
        self._next_s = now_s + self.tick_s * (1 - JITTER_SHARE * self._rng.random())
        self._out.append(f.Exchange(self._said))

    def _gives(self, now_s: float) -> list[f.Give]:
        """Give back what is released, and strays that nobody of us wishes for: they may do so in the first lease."""
        gives = self._holdings.given(AT_ONCE)
        if self.is_draining:
            gives += self._holdings.wasted(now_s, AT_ONCE)
        else:
            wasted = self._holdings.wasted(now_s - self.lease_s, AT_ONCE)
            gives += [give for give in wasted if give.key not in self._openings.wished]
        return self._to_heirs(gives) if gives else gives

    def _to_heirs(self, gives: list[f.Give]) -> list[f.Give]:
        """Name who is to take what is given: to whom it was promised, if that one can still have it, or the lightest.

        What we would have again ourselves, if it came to that, is given to nobody in particular.
        """
        members = {name: parts for name, parts in self.members().items() if name != self.name}
        heirs = {give.key: give.heir for give in gives if part(give.key) in members.get(give.heir, ())}
        free = [
            Weighed(weigh(give.key, give.load), give.key)
            for give in gives
            if give.key not in heirs
            if not give.finished
            if self.is_draining or give.key not in self._openings.wished
        ]
        heirs |= assign(free, {name: self.leases.units.get(name, 0) for name in members}, members)
        return [give._replace(heir=heirs.get(give.key, "")) for give in gives]

    def _buries(self, now_s: float) -> list[f.Bury]:
        buried = self.liveness.buried(now_s, BURIAL_LEASES * self.lease_s)
        return [f.Bury(each.name, each.beat) for each in buried if self._adopters.get(each.name) == self.name]
