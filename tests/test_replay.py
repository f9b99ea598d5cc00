"""What a replayed path tells: each event once, in its quarter, in words that agree with one another."""

from __future__ import annotations

import json

import pytest
from rich.console import Console
from simple import deal, path, quarter_date, study

import offtake
from offtake import cli
from offtake.checkpoints import read_manifest, write_manifest
from offtake.terminal import print_replay


def _events(replayed) -> list[tuple[int, str, str]]:
    return [(event["quarter"], event["deal"], event["event"]) for event in replayed.events]


def test_what_happened_before_the_study_is_no_event_of_it():
    tranches = {"early": {"gw": 1.0, "amount": 10.0}, "late": {"gw": 2.0, "amount": 5.0}}
    ladder = {"one": {"after": 0, "gw": 1.0}, "two": {"after": 4, "gw": 2.0}}
    received = {"money": {"kind": "vendor_investment", "tranches": tranches}}
    events = _events(path({"a": deal(start="2025-07-01", ladder=ladder, receives=received)}))
    assert (2, "a", "milestone of its vendor investment money, tranche late") in events
    assert not any("tranche early" in event for _, _, event in events)
    assert not any("starts" in event for _, _, event in events)


def test_a_cancelled_service_ends_when_it_was_said_to():
    """Hazard so high that it is cancelled in quarter 0, to end after 3 quarters."""
    replayed = path({"a": deal(cancel={"hazard": 1e6, "notice": 3})})
    assert _events(replayed)[:3] == [
        (0, "a", "starts as announced"),
        (0, "a", "is cancelled, to end with 2026Q3"),
        (2, "a", "service ends"),
    ]
    assert replayed.periods[2] == "2026Q3"


@pytest.mark.parametrize(("slip", "words"), [(0.5, "0.5 quarters after"), (-0.5, "0.5 quarters before")])
def test_a_start_beside_its_date_says_by_how_much(slip, words):
    assert (1, "a", f"starts, {words} its announced start") in [
        (1, name, event) for _, name, event in _events(path({"a": deal(start=quarter_date(1), slip=slip)}))
    ]


def test_a_notice_that_ends_after_the_term_is_none():
    replayed = path({"a": deal(term=2, cancel={"hazard": 1e6, "notice": 3})})
    assert _events(replayed)[:2] == [(0, "a", "starts as announced"), (1, "a", "service ends")]
    assert replayed.scalars["a.ended_term"] == 1.0


def test_no_zero_is_negative():
    replayed = path({"a": deal(slip=-0.5, start=quarter_date(1), long_stop=2)})
    written = json.dumps(replayed.to_dict())
    assert "-0.0," not in written
    assert "-0.0}" not in written


def test_deals_to_which_the_same_happens_share_a_line():
    console = Console(width=80, record=True)
    print_replay(path({name: deal() for name in ("a", "b")}), console)
    assert "2026Q1  a, b: starts as announced" in console.export_text().splitlines()


def test_a_path_that_the_run_does_not_have_is_refused(tmp_path, capsys):
    offtake.run(study({"a": deal()}, settings={"paths": 30}), out=tmp_path, device="numpy")
    assert cli.main(["replay", str(tmp_path), "--path", "29"]) == 0
    assert cli.main(["replay", str(tmp_path), "--path", "30"]) == 2
    assert "the run has paths 0 to 29, not 30" in capsys.readouterr().err


def test_an_edited_configuration_is_not_replayed(tmp_path, capsys):
    offtake.run(study({"a": deal()}), out=tmp_path, device="numpy")
    config = tmp_path / "config.yaml"
    config.write_text(config.read_text().replace("seed: 7", "seed: 8"))
    assert cli.main(["replay", str(tmp_path), "--path", "0"]) == 2
    assert "the file has been edited since, or a file of samples" in capsys.readouterr().err


def test_tranches_have_the_names_of_their_legs():
    tranches = {"early": {"gw": 0.5, "amount": 1.0}, "late": {"gw": 1.0, "amount": 2.0}}
    received = {
        "beta": {"kind": "vendor_investment", "tranches": {"only": {"gw": 1.0, "amount": 5.0}}},
        "alpha": {"kind": "vendor_investment", "tranches": tranches},
        "stake": {"kind": "equity", "amount": 1.0, "conditional": {"gw": 1.0, "amount": 1.0}},
        "warrant": {
            "kind": "warrants",
            "share": "ai_equity",
            "expiry": "2030-01-01",
            "tranches": {"first": {"gw": 1.0, "hurdle": 0.5, "shares": 1.0, "strike": 0.1}},
        },
    }
    ladder = {"half": {"after": 0, "gw": 0.5}, "all": {"after": 2, "gw": 1.0}}
    told = _events(path({"a": deal(ladder=ladder, shape="step", receives=received)}))
    assert [(t, event) for t, _, event in told if " of its " in event] == [
        (0, "milestone of its vendor investment alpha, tranche early"),
        (2, "milestone of its equity stake"),
        (2, "milestone of its vendor investment alpha, tranche late"),
        (2, "milestone of its vendor investment beta, tranche only"),
        (2, "milestone of its warrants warrant, tranche first"),
        (2, "vesting of its warrants warrant, tranche first"),
    ]


def test_a_path_that_is_not_finite_is_json(tmp_path, capsys):
    made = study({"a": deal()}, buyer={"cash": 1.0}, factors={"revenue": {"initial": 1e38, "growth": 3.0}})
    offtake.run(made, out=tmp_path, device="numpy", force=True)
    assert cli.main(["replay", str(tmp_path), "--path", "0", "--json"]) == 0
    cash = json.loads(capsys.readouterr().out)["quarters"]["cash"]
    assert None in cash
    assert cash[0] is not None


def test_a_path_that_a_run_reached_before_it_failed_can_be_replayed(tmp_path, capsys):
    offtake.run(study({"a": deal()}, settings={"paths": 30}), out=tmp_path, device="numpy")
    manifest = {**read_manifest(tmp_path), "paths": 30, "paths_done": 60, "status": "failed"}
    write_manifest(tmp_path, manifest)
    assert cli.main(["replay", str(tmp_path), "--path", "59"]) == 0
    assert cli.main(["replay", str(tmp_path), "--path", "60"]) == 2
    assert "the run has paths 0 to 59, not 60" in capsys.readouterr().err
