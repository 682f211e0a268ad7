"""Which tenants move where, so that no shard holds more than (1 + theta) of its share: as few bytes as possible.

Pure and deterministic: the same shards and tenants give the same plan, whatever order they come in. Nothing moves
that need not: a drained shard gives up all it has, a pinned tenant goes where it is pinned to, and each shard that
is over its limit gives up just about what it is over, to those that are below theirs.

The lower bound of the bytes is what is over the limits, what is on drained shards, and what is pinned elsewhere.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tenantry.api.move import MoveReason

THETA = 0.05
"""How far above its share a shard may be."""

EXACT = 0.02
"""Moving this share more than what a shard is over is exact enough: the fewer tenants are moved for it."""

_FIRST_OF_THREE = 20
"""Of combinations of three only those with one of so many largest tenants are looked at."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard as the planner sees it.

    reachable: what is not takes no part, nor do its tenants. cordoned: takes nothing, but may give. drained: gives
    everything. capacity: bytes, None: no limit said. reserved_for: the only tenant that belongs there, None: any.
    """

    name: str
    weight: int = 1
    reachable: bool = True
    cordoned: bool = False
    drained: bool = False
    capacity: int | None = None
    reserved_for: str | None = None

    @property
    def takes(self) -> bool:
        """Return whether any tenant may come."""
        return self.reachable and not self.cordoned and not self.drained and self.reserved_for is None


@dataclass(frozen=True, slots=True)
class Placed:
    """A tenant and the shard that it is on (with a move under way: will be on). size: bytes.

    pinned: the shard that its spec asks for. busy: it moves already, or may not be moved now.
    """

    tenant: str
    shard: str
    size: int
    pinned: str | None = None
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One tenant's move."""

    tenant: str
    source: str
    target: str
    size: int
    reason: MoveReason


@dataclass(frozen=True, slots=True)
class Share:
    """How full a shard is: bytes before and after the plan, and bytes that would be its share."""

    shard: str
    before: int
    after: int
    share: float

    @property
    def ratio(self) -> float:
        """Return what it will hold as a share of what it should: 1.0 is exact; with no share, infinite or 0."""
        return self.after / self.share if self.share else (float("inf") if self.after else 0.0)


@dataclass(frozen=True, slots=True)
class RebalancePlan:
    """Steps in the order in which they should begin, and how good that is.

    bound: bytes that every plan must move. too_large: tenants that alone are more than any shard's limit. stuck:
    tenants that should leave where they are, and that no other shard has room for. over: shards that stay over
    their limit, since nothing that they hold fits in elsewhere.
    """

    steps: tuple[Step, ...]
    shares: tuple[Share, ...]
    bound: int
    too_large: tuple[str, ...] = ()
    stuck: tuple[str, ...] = ()
    over: tuple[str, ...] = ()

    @property
    def moved(self) -> int:
        """Return the bytes that the plan moves."""
        return sum(step.size for step in self.steps)

    @property
    def ratio(self) -> float:
        """Return moved / bound; 1.0 where nothing has to move and nothing does."""
        if self.bound:
            return self.moved / self.bound
        return 1.0 if not self.moved else float("inf")


@dataclass(slots=True)
class _State:
    """Loads and tenants by shard while a plan is made."""

    shards: dict[str, Shard]
    load: dict[str, int]
    share: dict[str, float]
    theta: float
    here: dict[str, dict[str, Placed]]
    steps: list[Step] = field(default_factory=list)

    def limit(self, name: str) -> float:
        """Return the bytes that a shard may hold at most."""
        return (1 + self.theta) * self.share[name]

    def over(self, name: str) -> float:
        """Return by how many bytes a shard is over its limit."""
        return self.load[name] - self.limit(name)

    def room(self, name: str) -> float:
        """Return the bytes that a shard may take and stay within its limit and its capacity."""
        shard = self.shards[name]
        if not shard.takes:
            return 0.0
        room = self.limit(name) - self.load[name]
        return room if shard.capacity is None else min(room, shard.capacity - self.load[name])

    def fits(self, name: str, size: int) -> bool:
        """Return whether a shard has the capacity for so many bytes more, balanced or not."""
        capacity = self.shards[name].capacity
        return capacity is None or self.load[name] + size <= capacity

    def move(self, item: Placed, target: str, reason: MoveReason) -> None:
        """Take a step."""
        self.steps.append(Step(item.tenant, item.shard, target, item.size, reason))
        del self.here[item.shard][item.tenant]
        self.load[item.shard] -= item.size
        self.load[target] += item.size

    def movable(self, name: str, most: float) -> list[Placed]:
        """Return what a shard could give, none larger than `most` bytes, the largest first."""
        found = [
            item
            for item in self.here[name].values()
            if not item.busy and item.pinned is None and 0 < item.size <= most
        ]
        return sorted(found, key=lambda item: (-item.size, item.tenant))


def plan(shards: Iterable[Shard], tenants: Iterable[Placed], *, theta: float = THETA) -> RebalancePlan:
    """Return the moves that bring every shard to at most (1 + theta) of its share, as far as that can be.

    What is on a shard that cannot be reached, or that is not known, takes no part.
    """
    known = {shard.name: shard for shard in sorted(shards, key=lambda item: item.name) if shard.reachable}
    placed = sorted((item for item in tenants if item.shard in known), key=lambda item: item.tenant)
    here: dict[str, dict[str, Placed]] = {name: {} for name in known}
    for item in placed:
        here[item.shard][item.tenant] = item
    load = {name: sum(item.size for item in here[name].values()) for name in known}
    share, too_large = _shares(known, placed, theta)
    state = _State(known, dict(load), share, theta, here)
    bound = _lower_bound(state, placed)
    stuck = [*_pins(state, placed), *_leavers(state, placed)]
    over = _even_out(state)
    return RebalancePlan(
        tuple(state.steps),
        tuple(Share(name, load[name], state.load[name], share[name]) for name in known),
        bound,
        tuple(too_large),
        tuple(sorted(stuck)),
        tuple(over),
    )


def _shares(
    shards: dict[str, Shard], placed: Sequence[Placed], theta: float
) -> tuple[dict[str, float], list[str]]:
    """Return each shard's share in bytes, and the tenants that are more than any shard's limit.

    A shard with such a tenant has that one as its share; what is left is the share of the others, by weight.
    """
    common = {
        name: item.weight for name, item in shards.items() if not item.drained and item.reserved_for is None
    }
    share = dict.fromkeys(shards, 0.0)
    for item in placed:
        if shards[item.shard].reserved_for == item.tenant:
            share[item.shard] += item.size
    present = [item for item in placed if shards[item.shard].reserved_for != item.tenant]
    total = sum(item.size for item in present)
    if not common:
        return share, []
    largest = (1 + theta) * total * max(common.values()) / sum(common.values())
    too_large = [item for item in present if item.size > largest]
    floors = dict.fromkeys(common, 0)
    for item in too_large:
        if item.shard in floors:
            floors[item.shard] += item.size
    fixed: set[str] = set()
    while True:
        weights = sum(weight for name, weight in common.items() if name not in fixed)
        rest = total - sum(floors[name] for name in fixed)
        share |= {
            name: floors[name] if name in fixed else rest * weight / weights
            for name, weight in common.items()
        }
        more = {name for name in common if name not in fixed and floors[name] > share[name]}
        if not more or len(fixed | more) == len(common):
            return share, [item.tenant for item in too_large]
        fixed |= more


def _leaves(state: _State, item: Placed) -> bool:
    """Tell whether a tenant has to go, wherever to."""
    shard = state.shards[item.shard]
    return shard.drained or shard.reserved_for not in (None, item.tenant)


def _goes_to(state: _State, item: Placed) -> str | None:
    """Return the shard that a tenant is pinned to, where it is not there."""
    return item.pinned if item.pinned in state.shards and item.pinned != item.shard else None


def _lower_bound(state: _State, placed: Sequence[Placed]) -> int:
    """Return the bytes that any plan must move that leaves nothing to be moved."""
    must = [item for item in placed if not item.busy and (_goes_to(state, item) or _leaves(state, item))]
    rest = dict(state.load)
    for item in must:
        rest[item.shard] -= item.size
    surplus = sum(max(0.0, load - state.limit(name)) for name, load in rest.items() if state.share[name])
    return round(sum(item.size for item in must) + surplus)


def _pins(state: _State, placed: Sequence[Placed]) -> list[str]:
    """Move tenants to where they are pinned to; return those that find no room there."""
    stuck = []
    for item in placed:
        target = _goes_to(state, item)
        if target is None or item.busy:
            continue
        shard = state.shards[target]
        # A pin is an order of somebody who looks after the shards: balance and a cordon do not hinder it.
        reserved = shard.reserved_for not in (None, item.tenant)
        if shard.drained or reserved or not state.fits(target, item.size):
            stuck.append(item.tenant)
        else:
            state.move(item, target, MoveReason.PIN)
    return stuck


def _leavers(state: _State, placed: Sequence[Placed]) -> list[str]:
    """Move what has to go, the largest first, each to where it is least full then; return those without room."""
    stuck = []
    for item in sorted(placed, key=lambda each: (-each.size, each.tenant)):
        if item.busy or item.tenant not in state.here[item.shard] or not _leaves(state, item):
            continue
        if item.pinned in state.shards:
            # It belongs nowhere else: where that has no room, `_pins` has said so.
            stuck.extend([item.tenant] if item.pinned == item.shard else [])
            continue
        others = (shard for name, shard in state.shards.items() if name != item.shard and shard.takes)
        targets = [shard.name for shard in others if state.fits(shard.name, item.size)]
        if not targets:
            stuck.append(item.tenant)
            continue
        state.move(item, min(targets, key=lambda name: _fullness(state, name, item.size)), MoveReason.DRAIN)
    return stuck


def _fullness(state: _State, name: str, size: int) -> tuple[float, float, str]:
    """Order shards by how full they would be in bytes, then by how many tenants they have."""
    share, weight = state.share[name], state.shards[name].weight
    return ((state.load[name] + size) / share if share else 0.0, len(state.here[name]) / weight, name)


def _even_out(state: _State) -> list[str]:
    """Take off what shards are over, those that are the most so first; return those that stay over."""
    names = [name for name in state.shards if state.share[name] and not state.shards[name].drained]
    names.sort(key=lambda each: (-state.over(each), each))
    while True:
        over = [name for name in names if state.over(name) > 0]
        # What one gives up makes a little room, maybe for what another could not give before.
        if not any(_relieve(state, name) for name in over):
            return sorted(over)


def _relieve(state: _State, name: str) -> bool:
    """Move the best one to three tenants off a shard that is over its limit; False where none fits in elsewhere."""
    rooms = sorted(((state.room(other), other) for other in state.shards if other != name), reverse=True)
    if not rooms or rooms[0][0] <= 0:
        return False
    chosen = _choose(state.movable(name, rooms[0][0]), state.over(name))
    moved = False
    for item in chosen:
        # The room that is left shrinks with each: what fits in no longer is chosen anew.
        room, target = max((state.room(other), other) for other in state.shards if other != name)
        if item.size <= room:
            state.move(item, target, MoveReason.REBALANCE)
            moved = True
    return moved


def _choose(items: Sequence[Placed], excess: float) -> list[Placed]:
    """Return up to three of `items` (the largest first) whose sum is at least `excess` and hardly more.

    As few as are exact enough. Where no three are, the largest that is not too much: the rest comes next time.
    """
    sizes = [item.size for item in items]
    best: tuple[int, ...] = ()
    for find in (_one, _two, _three):
        found = find(sizes, excess)
        if found and (not best or _sum(sizes, found) < _sum(sizes, best)):
            best = found
        if best and _sum(sizes, best) - excess <= EXACT * excess:
            return [items[index] for index in best]
    smaller = next((item for item in items if item.size <= excess), None)
    return [smaller] if smaller is not None else [items[index] for index in best]


def _sum(sizes: Sequence[int], indexes: Iterable[int]) -> int:
    return sum(sizes[index] for index in indexes)


def _one(sizes: Sequence[int], excess: float) -> tuple[int, ...]:
    """Return the index of the smallest size that is enough."""
    enough = bisect_right(sizes, -excess, key=lambda size: -size)
    return (enough - 1,) if enough else ()


def _two(sizes: Sequence[int], excess: float, first: int = 0) -> tuple[int, ...]:
    """Return the two indexes from `first` on with the least sum that is enough: one goes down the list, one up."""
    best: tuple[int, ...] = ()
    least, last = math.inf, len(sizes) - 1
    while first < last:
        both = sizes[first] + sizes[last]
        if both < excess:
            last -= 1
            continue
        if both < least:
            best, least = (first, last), both
        first += 1
    return best


def _three(sizes: Sequence[int], excess: float) -> tuple[int, ...]:
    """Return the three indexes with the least sum that is enough, one of them the largest that are not alone."""
    best: tuple[int, ...] = ()
    begin = bisect_right(sizes, -excess, key=lambda size: -size)
    for index in range(begin, min(begin + _FIRST_OF_THREE, len(sizes))):
        pair = _two(sizes, excess - sizes[index], index + 1)
        if pair and (not best or sizes[index] + _sum(sizes, pair) < _sum(sizes, best)):
            best = (index, *pair)
        if best and _sum(sizes, best) - excess <= EXACT * excess:
            return best
    return best
