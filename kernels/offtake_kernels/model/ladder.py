"""A deal's delivered curve over its own ladder time: GW (before size) after `y` quarters of the ladder.

The planned curve G(e) is a sum of segments, one per rung: a `jump` adds its GW at `begin`, a `ramp` adds them
linearly from `begin` over `length`. Each part is clamped on its own, so that plateaus are exact.
"""

from __future__ import annotations


def _progress(ops, segment, y):
    """Ladder time spent on a ramp until `y`, and after it; 0 before its begin."""
    since = ops.maximum(y - segment["begin"], 0.0)
    on = ops.minimum(since, segment["length"])
    return on, since - on


def mean(ops, segments, position, service):
    """∫ of the curve from `position` over `service` quarters (≤ 1): the quarter's mean of what is in
    service.
    """
    total = 0.0
    for segment in segments:
        if segment["kind"] == "jump":
            filled = ops.minimum(ops.maximum(position + service - segment["begin"], 0.0), service)
        else:
            begin, _ = _progress(ops, segment, position)
            end, after = _progress(ops, segment, position + service)
            filled = (end - begin) * (end + begin) * segment["half_inverse"] + ops.minimum(after, service)
        total = total + segment["gw"] * filled
    return total


def level(ops, segments, position):
    """The curve at `position`; a jump at `position` itself belongs to what follows."""
    total = 0.0
    for segment in segments:
        if segment["kind"] == "jump":
            total = total + ops.where(position > segment["begin"], segment["gw"], 0.0)
        else:
            on, _ = _progress(ops, segment, position)
            total = total + segment["gw"] * (on / segment["length"])
    return total


def integral(ops, segments, position):
    """∫ of the curve from 0 to `position`, GW-quarters."""
    total = 0.0
    for segment in segments:
        if segment["kind"] == "jump":
            filled = ops.maximum(position - segment["begin"], 0.0)
        else:
            on, after = _progress(ops, segment, position)
            filled = on * on * segment["half_inverse"] + after
        total = total + segment["gw"] * filled
    return total
