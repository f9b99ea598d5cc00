"""The announced total beside the press's, line by line.

conf/press.yaml lists what the press counts and which deals stand for it. What a deal pays when everything
goes as announced is one path of the announced study, to the end of its horizon.
"""

from __future__ import annotations

import importlib.resources
from typing import Any

import yaml

from offtake.announce import announced, announced_totals
from offtake.simulate import run
from offtake.study import DeviceChoice, ExecutorChoice, Study


def reconcile(study: Study) -> dict[str, Any] | None:
    """The press's items against the model's, and the bridge to the announced total; None if not listed.

    Amounts in US$ bn: counted and not_counted [{item, press_bn, model_bn, difference_bn, note}], elsewhere
    [{item, press_bn, note}], press_bn, model_bn, and bridge [{item, bn}] from model_bn to announced_bn.
    """
    text = importlib.resources.files("offtake.conf").joinpath("press.yaml").read_text(encoding="utf-8")
    press = yaml.safe_load(text)
    if study.portfolio.name not in press["portfolios"]:
        return None
    paid, power = _paid(study)
    totals = announced_totals(study)
    headline = {deal["deal"]: deal["paid_bn"] for deal in totals["deals"]}
    counted = [_line(item, paid) for item in press["counted"]]
    outside = [_line(item, paid) for item in press["not_counted"]]
    model = sum(line["model_bn"] for line in counted)
    named = {deal for item in press["not_counted"] for deal in item["deals"]}
    beyond = sum(value for deal, value in headline.items() if deal in named)
    rest = totals["announced_bn"] - model - beyond + power
    bridge = [
        {"item": "electricity, in no headline", "bn": -power},
        {"item": "rent and charges due after the horizon", "bn": rest},
        {"item": "deals that the press does not count", "bn": beyond},
    ]
    return {
        "source": press["source"],
        "press_bn": press["total_bn"],
        "model_bn": model,
        "counted": counted,
        "not_counted": outside,
        "elsewhere": [
            {key: item[key] for key in ("item", "press_bn", "note")} for item in press["elsewhere"]
        ],
        "bridge": bridge,
        "announced_bn": totals["announced_bn"],
    }


def _paid(study: Study) -> tuple[dict[str, float], float]:
    """What each deal pays as announced inside the horizon, and the electricity among it."""
    settings = study.study.model_copy(update={"paths": 1, "keep_paths": 0, "until": None})
    sure = announced(study).model_copy(update={"study": settings, "executor": ExecutorChoice()})
    result = run(sure, device=DeviceChoice(name="numpy"))
    paid = dict.fromkeys(study.portfolio.deals, 0.0)
    power = 0.0
    for row, mean in zip(result.summary.rows, result.summary.statistics["mean"], strict=True):
        if row.scope == "deal" and row.metric == "spend":
            paid[row.name] += float(mean)
        elif row.metric == "power_cost":
            power += float(mean)
    return paid, power


def _line(item: dict[str, Any], paid: dict[str, float]) -> dict[str, Any]:
    model = sum(paid.get(deal, 0.0) for deal in item["deals"])
    difference = None if item["press_bn"] is None else model - item["press_bn"]
    return {
        "item": item["item"],
        "press_bn": item["press_bn"],
        "model_bn": model,
        "difference_bn": difference,
        "note": item["note"],
    }
