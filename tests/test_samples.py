"""Distributions read from files: their numbers are checked, and they are part of what a study is."""

from __future__ import annotations

from pathlib import Path

import pytest
import simple

import offtake
from offtake import cli
from offtake.distributions import Sampled
from offtake.errors import InputError
from offtake.resolved import config_hash, config_yaml


def _study(file: Path, term: str = "slip", *, mixed: bool = False) -> offtake.Study:
    fee = {"kind": "commitment", "total": 10.0}
    form = {"samples": {"file": str(file), "column": "x"}}
    mixture = {"dist": "mixture", "parts": [{"weight": 1.0, "of": 2.0}, {"weight": 1.0, "of": form}]}
    drawn = {term: mixture if mixed else form}
    return simple.study(
        {"cloud": simple.deal(pays={"fee": fee}, **drawn)}, quarters=6, settings={"paths": 50}
    )


def _written(file: Path, *numbers: str) -> Path:
    file.write_text("\n".join(["x", *numbers]) + "\n")
    return file


def test_a_study_is_known_by_its_numbers(tmp_path):
    file = tmp_path / "draws.csv"
    first = config_hash(_study(_written(file, "1", "2")))
    assert config_hash(_study(_written(file, "1", "5"))) != first
    assert config_hash(_study(_written(file, "1.0", "2e0"))) == first


_RELATIVE = """
portfolio:
  name: relative
  start: 2025-12-01
  quarters: 6
  deals:
    cloud:
      supplier: X
      layer: compute
      hardware: chip
      start: 2025-12-01
      ladder: {all: {after: 0, gw: 1}}
      slip: {dist: mixture, parts: [
        {weight: 1, of: 0.5}, {weight: 1, of: {samples: {file: numbers/draws.csv, column: x}}}]}
world:
  factors: {demand: {initial: 1}, revenue: {initial: 4}}
  hardware: {chip: {h100e_per_gw: 1.2}}
study: {paths: 50}
"""


def test_a_run_is_the_same_wherever_it_is_started(tmp_path, monkeypatch):
    """Named relative to its file; the folder's config.yaml gives the study again from anywhere."""
    (tmp_path / "numbers").mkdir()
    _written(tmp_path / "numbers" / "draws.csv", "1", "2")
    (tmp_path / "own.yaml").write_text(_RELATIVE)
    monkeypatch.chdir(tmp_path)
    first = offtake.run(offtake.load("own.yaml"), out="run", device="numpy")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    study = offtake.load("../own.yaml")
    assert config_hash(study) == first.manifest["config_hash"]
    monkeypatch.chdir("/")
    assert offtake.run(study, device="numpy").summary_hash == first.summary_hash
    again = offtake.run(offtake.load(tmp_path / "run" / "config.yaml"), device="numpy")
    assert (again.summary_hash, again.manifest["config_hash"]) == (
        first.summary_hash,
        first.manifest["config_hash"],
    )
    assert cli.main(["replay", str(tmp_path / "run"), "--path", "3"]) == 0


def test_a_file_may_be_another_s(tmp_path, monkeypatch):
    _written(tmp_path / "draws.csv", "1", "2")
    head, _, _ = _RELATIVE.partition("      slip:")
    tail = _RELATIVE[_RELATIVE.index("world:") :]
    terms = """\
      slip: {samples: {file: draws.csv, column: x}}
      size: {samples: {file: "${portfolio.deals.cloud.slip.samples.file}", column: x}}
"""
    (tmp_path / "own.yaml").write_text(head + terms + tail)
    monkeypatch.chdir("/")
    deal = offtake.load(tmp_path / "own.yaml").portfolio.deals["cloud"]
    for term in (deal.slip, deal.size):
        assert isinstance(term, Sampled)
        assert term.samples.file == str(tmp_path / "draws.csv")


def test_numbers_moved_to_another_file_are_the_same_study(tmp_path):
    one, other = _written(tmp_path / "a.csv", "1", "2"), _written(tmp_path / "b.csv", "1", "2")
    assert config_hash(_study(one)) == config_hash(_study(other))
    deals = {
        name: simple.deal(pays={"fee": {"kind": "commitment", "total": 1.0}}) for name in ("file", "column")
    }
    assert config_hash(simple.study(deals))  # deals may have these names


def test_a_file_that_is_gone_since_it_was_loaded_is_named(tmp_path):
    study = _study(_written(tmp_path / "draws.csv", "1", "2"))
    (tmp_path / "draws.csv").unlink()
    with pytest.raises(offtake.OfftakeError, match=r"draws\.csv: cannot be read: .*No such file"):
        offtake.run(study, device="numpy")


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    (tmp_path / "draws.csv").write_text("x,x\n1,2\n")
    with pytest.raises(InputError, match="has several columns 'x'"):
        _study(tmp_path / "draws.csv")


def test_another_content_is_another_study(tmp_path, capsys):
    draws, out = tmp_path / "draws.csv", tmp_path / "run"
    saved = offtake.run(_study(_written(draws, "1", "2")), out=out, device="numpy").summary_hash
    assert cli.main(["replay", str(out), "--path", "3"]) == 0
    _written(draws, "1", "5")
    with pytest.raises(InputError, match="a file of samples has changed"):
        offtake.run(_study(draws), out=out, device="numpy")
    with pytest.raises(InputError, match="a file of samples has changed"):
        offtake.run(_study(draws), out=out, device="numpy", resume=True)
    assert cli.main(["replay", str(out), "--path", "3"]) == 2
    assert "or a file of samples" in capsys.readouterr().err
    _written(draws, "1", "2")
    assert offtake.run(_study(draws), out=out, device="numpy").summary_hash == saved
    assert config_yaml(_study(draws)) == (out / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["2026-01-01", "2026-01-03"], "date32"),
        (["2026-01-01T00:00:00"], "timestamp"),
        (["true", "false"], "bool"),
    ],
)
def test_what_only_looks_like_numbers_is_refused(tmp_path, values, kind):
    with pytest.raises(InputError, match=f"column 'x' holds {kind}.*, not numbers"):
        _study(_written(tmp_path / "draws.csv", *values))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (["1", "abc"], r"column 'x' holds something that is not a number: .*'(1|abc)'"),
        ([], "has no rows"),
        (["1", "nan"], "column 'x' has nan in row 2; numbers must be finite"),
        (["inf"], "column 'x' has inf in row 1; numbers must be finite"),
    ],
)
def test_what_is_no_number_is_refused(tmp_path, numbers, message):
    with pytest.raises(InputError, match=message) as raised:
        _study(_written(tmp_path / "draws.csv", *numbers))
    assert len(raised.value.mistakes) == 1
    assert "cloud.slip.samples.file" in str(raised.value)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ("size", "must be at least 0, but goes down to -3"),
        ("stretch", "must be above 0, but goes down to -3"),
    ],
)
@pytest.mark.parametrize("mixed", [False, True])
def test_a_number_out_of_range_is_refused(tmp_path, term, message, mixed):
    with pytest.raises(InputError, match=message):
        _study(_written(tmp_path / "draws.csv", "2", "-3"), term, mixed=mixed)
