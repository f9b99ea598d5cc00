"""A deal's delivered curve over its own ladder time: GW (before size) after `y` quarters of the ladder.

The planned curve G(e) is a sum of segments, one per rung: a `jump` adds its GW at `begin`, a `ramp` adds them
linearly from `begin` over `length`. Each part is clamped on its own, so that plateaus are exact.
"""

from __future__ import annotations


def _progress(ops, segment, y):
    return ops.minimum(ops.maximum(y - segment["begin"], 0.0), segment["length"])


def mean(ops, segments, position, service):
    """∫ of the curve from `position` over `service` quarters (≤ 1): the quarter's mean of what is in
    service.
    """
    total = 0.0
    for segment in segments:
        ahead = position + service - segment["begin"]
        if segment["kind"] == "jump":
            filled = ops.minimum(ops.maximum(ahead, 0.0), service)
        else:
            begin, end = _progress(ops, segment, position), _progress(ops, segment, position + service)
            after = ops.minimum(ops.maximum(ahead - segment["length"], 0.0), service)
            filled = (end - begin) * (end + begin) * segment["half_inverse"] + after
        total = total + segment["gw"] * filled
    return total


def level(ops, segments, position):
    """The curve at `position`; a jump at `position` itself belongs to what follows."""
    total = 0.0
    for segment in segments:
        if segment["kind"] == "jump":
            total = total + ops.where(position > segment["begin"], segment["gw"], 0.0)
        else:
            total = total + segment["gw"] * (_progress(ops, segment, position) / segment["length"])
    return total


def integral(ops, segments, position):
    """∫ of the curve from 0 to `position`, GW-quarters."""
    total = 0.0
    for segment in segments:
        if segment["kind"] == "jump":
            filled = ops.maximum(position - segment["begin"], 0.0)
        else:
            part = _progress(ops, segment, position)
            after = ops.maximum((position - segment["begin"]) - segment["length"], 0.0)
            filled = part * part * segment["half_inverse"] + after
        total = total + segment["gw"] * filled
    return total
