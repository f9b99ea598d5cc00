"""Every peer computes offtake's study: means and quantiles agree in every quarter."""

from __future__ import annotations

import common
import compare_peers
import numpy as np
import pytest

from offtake import hal
from offtake.study import DeviceChoice
from offtake.summary import Summary
from peers import BY_DEAL, PEERS, agreement

MOST_PATHS = 16_384


@pytest.fixture(scope="module", params=["totals", "deals"])
def recorded(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def ours(recorded: str) -> Summary:
    device = hal.open_device(DeviceChoice.model_validate({"name": "numpy"}))
    plan = agreement.plan_of(common.plain(), by_deal=recorded == "deals")
    return Summary(device.run(plan, 0, 65_536, 0)[0], agreement.rows_of(plan))


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_agrees(ours: Summary, recorded: str, name: str):
    peer = PEERS[name] if recorded == "totals" else BY_DEAL.get(name)
    if peer is None:
        pytest.skip("answers no deal by itself")
    pytest.importorskip(peer.library)
    paths = min(peer.paths, MOST_PATHS)
    theirs = peer.prepare(common.plain(), paths)(1)
    assert len(theirs) == (4 if recorded == "totals" else 40)
    for key, distance in agreement.distances(ours, theirs, paths).items():
        assert np.all(distance < agreement.FALSE_ALARM), (key, distance)


def test_nothing_is_timed_beside_a_peer_of_other_terms(ours: Summary, monkeypatch):
    study = common.plain()
    study["portfolio"]["deals"]["deal05"]["start"] = "2026-11-01"
    monkeypatch.setattr(common, "plain", lambda: study)
    with pytest.raises(SystemExit, match="later disagrees with offtake"):
        compare_peers.checked({"a deal a quarter later": compare_peers.Theirs(PEERS["blocked numpy"])}, ours)
