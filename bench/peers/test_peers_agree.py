"""Every peer computes offtake's study: means and quantiles agree in every quarter."""

from __future__ import annotations

from functools import cache

import common
import compare_peers
import numpy as np
import pytest

from offtake import hal
from offtake.study import DeviceChoice
from offtake.summary import Summary
from peers import BY_DEAL, PEERS, agreement

MOST_PATHS = 16_384


@cache
def ours(recorded: str) -> Summary:
    device = hal.open_device(DeviceChoice.model_validate({"name": "numpy"}))
    plan = agreement.plan_of(common.plain(), by_deal=recorded == "deals")
    return Summary(device.run(plan, 0, 65_536, 0)[0], agreement.rows_of(plan))


CASES = [("totals", name) for name in PEERS] + [("deals", name) for name in BY_DEAL]


@pytest.mark.parametrize(("recorded", "name"), CASES)
def test_a_peer_agrees(recorded: str, name: str):
    peer = (PEERS if recorded == "totals" else BY_DEAL)[name]
    pytest.importorskip(peer.library)
    paths = min(peer.paths, MOST_PATHS)
    theirs = peer.prepare(common.plain(), paths)(1)
    assert len(theirs) == (4 if recorded == "totals" else 40)
    for key, distance in agreement.distances(ours(recorded), theirs, paths).items():
        assert np.all(distance < agreement.FALSE_ALARM), (key, distance)


def test_nothing_is_timed_beside_a_peer_of_other_terms(monkeypatch):
    study = common.plain()
    study["portfolio"]["deals"]["deal05"]["start"] = "2026-11-01"
    right = ours("totals")
    monkeypatch.setattr(common, "plain", lambda: study)
    with pytest.raises(SystemExit, match="later disagrees with offtake"):
        compare_peers.checked({"a deal a quarter later": compare_peers.Theirs(PEERS["blocked numpy"])}, right)
