"""Chips against sites, compute online, and concentration. Arguments are lists of rows, one per deal in
order.
"""

from __future__ import annotations

from ..layout import SHORT_OF_SITES, TINY, Plan


def total(rows):
    """Sum of rows in the order given: the order is part of the result in float32."""
    value = 0.0
    for row in rows:
        value = value + row
    return value


def pool(ops, plan: Plan, deliveries: list[dict], zero) -> dict:
    """Energised capacity and compute of every deal, totals, and the buyer's concentration.

    `capacity`, `compute`: lists by deal (0 for sites). `hhi` is 0 where nothing is online.
    """
    count = len(plan.deal_names)
    gw: list = [None] * count
    compute: list = [None] * count
    layer = [""] * count
    for group, delivery in zip(plan.groups, deliveries, strict=True):
        for row, deal in enumerate(group.deals):
            gw[deal] = delivery["gw"][row]
            compute[deal] = delivery["compute"][row] if group.features.layer != "site" else 0.0
            layer[deal] = group.features.layer
    pooled = {"gw": gw, "delivered_gw": total(gw) + zero}
    capacity = [0.0 if kind == "site" else row for kind, row in zip(layer, gw, strict=True)]
    if "chips" in layer:
        chips = total(row for kind, row in zip(layer, gw, strict=True) if kind == "chips") + zero
        sites = total(row for kind, row in zip(layer, gw, strict=True) if kind == "site") + zero
        share = ops.minimum(sites / ops.maximum(chips, TINY), 1.0)
        for deal, kind in enumerate(layer):
            if kind == "chips":
                capacity[deal] = capacity[deal] * share
                compute[deal] = compute[deal] * share
        pooled["sites_short"] = chips > sites * SHORT_OF_SITES
        pooled["site_load"] = ops.minimum(chips / ops.maximum(sites, TINY), 1.0)
    pooled["capacity"], pooled["compute"] = capacity, compute
    pooled["capacity_gw"] = total(capacity) + zero
    pooled["online"] = total(compute) + zero
    suppliers = [total(compute[deal] for deal in deals) for deals in plan.supplier_deals]
    square = 0.0
    for supplier in suppliers:
        part = supplier / ops.maximum(pooled["online"], TINY)
        square = square + part * part
    pooled["hhi"] = square + zero
    return pooled
