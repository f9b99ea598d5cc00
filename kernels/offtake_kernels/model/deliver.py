"""Lifecycle and delivery of a group of deals in one quarter.

Ladder time runs with the calendar except in quarters in which the deal waits. Service begins at the own
start and ends with the term, an extension, a cancellation or a default, whichever is known first.
"""

from __future__ import annotations

from ..layout import NEVER, SMALLEST_GW, Group
from . import ladder


def initial(ops, group: Group, terms: dict, zero) -> dict:
    """State of a group before its first quarter; `zero` is float32 zeros [lanes]."""
    features = group.features
    blank = terms["start"] * 0.0 + zero
    state: dict = {}
    if features.waits:
        state["own_start"] = terms["start"] + zero
        state["wait"] = blank
    if keeps_level(group):
        state["level"] = blank
    if features.improves:
        state["vintage"] = blank
    for event in ("cancel", "default"):
        if getattr(features, event):
            state[f"{event}_at"] = blank + NEVER
            if getattr(features, f"{event}_in_bust"):
                state[f"{event}_hazard"] = blank
    if features.extension != "never":
        # A last whole quarter before quarter 0 has decided already, where no demand is needed for that.
        decided = features.extension == "always"
        state["extended"] = blank + terms["start"] + group.parameters["term"] < (1.0 if decided else -NEVER)
    return state


def keeps_level(group: Group) -> bool:
    """Whether the curve at the quarter's end is carried: waiting, vintages, purchases, owned hardware."""
    features = group.features
    events = features.cancel or features.default or features.long_stop or features.uncertain
    return features.waits or features.improves or features.has("purchase") or (features.owned and events)


def deliver(
    ops, group: Group, terms: dict, state: dict, signals: dict, t, vintage, lagged
) -> tuple[dict, dict]:
    """One quarter of a group: (state, delivery).

    signals: `history` (before quarter 0: no events, no waiting), `distress`, `sites_short` [lanes], `bust`,
    `service_end` of each deal. vintage: MH100e per GW delivered now [deals, 1]. lagged: the delivery of
    `life` quarters ago, or None. Before size: mean, base_mean (inside the term), added (GW delivered in the
    quarter). With size: raw_gw, gw (a trickle counts as 0), compute.
    """
    features = group.features
    after = dict(state)
    begin, start, stopped = _clock(ops, group, terms, state, after, signals, t)
    end = _service_end(ops, group, terms, state, after, signals, t, start)
    if stopped is not None and end is not None:
        # What has ended waits no longer.
        for name in ("own_start", "wait"):
            after[name] = ops.where(t >= end, state[name], after[name])
        start = ops.where(t >= end, begin, start)
    base_end, scheduled = _contract_ends(ops, group, state, start)
    position = t - start - state["wait"] if features.waits else t - start
    idle = stopped
    service = base_service = 1.0
    if features.term:
        service = ops.minimum(ops.maximum(end - t, 0.0), 1.0)
        base_service = ops.minimum(ops.maximum(ops.minimum(end, base_end) - t, 0.0), 1.0)
    elif end is not None:
        ended = t >= end
        idle = ended if idle is None else idle | ended
    mean = _mean(ops, terms, state, position, service, idle)
    until = t + 1.0 if end is None else ops.minimum(end, t + 1.0)
    delivery = {
        "start": start,
        "end": end,
        "base_end": base_end,
        "scheduled_end": scheduled,
        "mean": mean,
        "base_mean": mean,
        "service": service,
        "position": position,
        "reached": until - start - after["wait"] if features.waits else until - start,
    }
    if features.cancel and features.term:
        delivery["cancelled"] = (after["cancel_at"] == t) & (end == t) & (scheduled > t)
    if features.extension != "never":
        delivery["base_mean"] = _mean(ops, terms, state, position, base_service, idle)
    if keeps_level(group):
        _advance(ops, group, terms, state, after, delivery, idle)
    _installed(ops, group, terms, state, after, delivery, vintage, lagged)
    return after, delivery


def nothing(group: Group) -> dict:
    """The delivery of a quarter in which no deal of a group can have begun."""
    none = group.parameters["start"] * 0.0
    return {"end": None, "mean": none, "vintage_mean": none, "gw": none, "compute": none}


def _clock(ops, group, terms, state, after, signals, t):
    """Own start before and after the quarter's waiting, and who stands still.

    A deal that has not begun service waits by moving its own start; any other by stopping its ladder. While
    another deal blocks it, waiting and blocking overlap.
    """
    features = group.features
    if not features.waits:
        start = _unblocked(ops, group, terms["start"], signals)
        return start, start, None
    begin = _unblocked(ops, group, state["own_start"], signals)
    if signals["history"]:
        return begin, begin, None
    stopped = None
    if features.deferrable:
        stopped = signals["distress"]
    if features.follows_sites:
        stopped = signals["sites_short"] if stopped is None else stopped | signals["sites_short"]
    moves = stopped & (t <= begin)
    own_start = state["own_start"] + ops.to_float(moves)
    if features.blocked_by:
        # The blocker's end must not hide the wait: nothing starts in a quarter that it waits through.
        starts = _unblocked(ops, group, own_start, signals) < t + 1.0
        own_start = ops.where(moves & starts, begin + 1.0, own_start)
    after["own_start"] = own_start
    after["wait"] = state["wait"] + ops.to_float(stopped & (t > begin))
    return begin, _unblocked(ops, group, own_start, signals), stopped


def _unblocked(ops, group, start, signals):
    """The later of the own start and the end of service of the deal that blocks it."""
    if not group.features.blocked_by:
        return start
    return ops.maximum(
        start,
        ops.stack([signals["service_end"][deal] + signals["zero"] for deal in group.features.blocked_by]),
    )


def _contract_ends(ops, group, state, start):
    """Ends of the first term and of the contract with its extension; None without a term."""
    features, parameters = group.features, group.parameters
    if not features.term:
        return None, None
    base_end = start + parameters["term"]
    if features.extension == "never":
        return base_end, base_end
    return base_end, base_end + ops.where(state["extended"], parameters["extension_quarters"], 0.0)


def _service_end(ops, group, terms, state, after, signals, t, start):
    """End of service as known in this quarter (of deliveries, for owned hardware); None: no end."""
    features, parameters = group.features, group.parameters
    _, end = _contract_ends(ops, group, state, start)
    for known in ("default_at", "cancel_at"):
        if known in state:
            end = state[known] if end is None else ops.minimum(end, state[known])
    if "ends" in terms:
        end = terms["ends"] if end is None else ops.minimum(end, terms["ends"])
    if signals["history"] or not (features.cancel or features.default):
        return end
    in_service = t < end
    defaults = None
    if features.default:
        defaults = _hit(ops, "default", group, terms, state, after, signals, t) & in_service
        after["default_at"] = ops.where(defaults, t, state["default_at"])
        end = ops.minimum(end, after["default_at"])
    if features.cancel:
        cancels = _hit(ops, "cancel", group, terms, state, after, signals, t) & in_service
        if defaults is not None:
            cancels = cancels & ~defaults
        after["cancel_at"] = ops.where(cancels, t + parameters["cancel_notice"], state["cancel_at"])
        end = ops.minimum(end, after["cancel_at"])
    return end


def _hit(ops, event, group, terms, state, after, signals, t):
    """Whether the cumulative hazard passes the path's exponential threshold in this quarter.

    A default ends its service at once, so that being past the threshold in service is passing it.
    """
    hazard = group.parameters[f"{event}_hazard"]
    before, passed = hazard * t, hazard * (t + 1.0)
    if getattr(group.features, f"{event}_in_bust"):
        before = state[f"{event}_hazard"]
        in_bust = group.parameters[f"{event}_bust"] * ops.to_float(signals["bust"])
        after[f"{event}_hazard"] = passed = before + (hazard + in_bust)
    hit = passed > terms[f"{event}_threshold"]
    return hit if event == "default" else hit & (before <= terms[f"{event}_threshold"])


def _mean(ops, terms, state, position, service, idle):
    mean = ladder.mean(ops, terms["segments"], position, service)
    return mean if idle is None else ops.where(idle, state["level"] * service, mean)


def _advance(ops, group, terms, state, after, delivery, idle):
    """The curve at the quarter's end, and what was delivered in the quarter."""
    level = ladder.level(ops, terms["segments"], delivery["position"] + delivery["service"])
    if idle is not None:
        level = ops.where(idle, state["level"], level)
    if group.features.term:
        level = ops.where(delivery["service"] > 0.0, level, state["level"])
    after["level"] = level
    delivery["added"] = level - state["level"]


def _installed(ops, group, terms, state, after, delivery, vintage, lagged):
    """GW and compute in place, by vintage, after retirement."""
    features, parameters = group.features, group.parameters
    mean, size = delivery["mean"], terms["size"]
    installed = mean if lagged is None else mean - lagged["mean"]
    delivery["raw_gw"] = size * installed
    enough = delivery["raw_gw"] >= SMALLEST_GW
    delivery["gw"] = ops.where(enough, delivery["raw_gw"], 0.0)
    if features.layer == "site":
        return
    if not features.improves:
        delivery["compute"] = parameters["h100e_per_gw"] * delivery["gw"]
        return
    own = mean - state["level"] * delivery["service"]
    delivery["vintage_mean"] = state["vintage"] * delivery["service"] + vintage * own
    after["vintage"] = state["vintage"] + vintage * delivery["added"]
    online = delivery["vintage_mean"] if lagged is None else delivery["vintage_mean"] - lagged["vintage_mean"]
    delivery["compute"] = ops.where(enough, size * online, 0.0)


def extend(
    ops, group: Group, state: dict, delivery: dict, own_compute, demand, online, t
) -> tuple[dict, dict]:
    """Decides an extension in the last whole quarter of the term; after a notice nothing is extended.

    own_compute [deals, lanes], demand and online [lanes]: of the quarter itself. Returns (state, delivery).
    """
    base_end, end = delivery["base_end"], delivery["end"]
    extends = (base_end >= t + 1.0) & (base_end < t + 2.0) & (end == base_end)
    if "cancel_at" in state:
        extends = extends & (state["cancel_at"] >= NEVER)
    if group.features.extension == "shortage":
        extends = extends & (demand * group.parameters["extension_threshold"] > online - own_compute)
    longer = base_end + group.parameters["extension_quarters"]
    known = {
        "end": ops.where(extends, longer, end),
        "scheduled_end": ops.where(extends, longer, delivery["scheduled_end"]),
    }
    return {**state, "extended": state["extended"] | extends}, {**delivery, **known}
