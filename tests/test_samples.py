"""Distributions read from files: their numbers are checked, and they are part of what a study is."""

from __future__ import annotations

from pathlib import Path

import pytest
import simple

import offtake
from offtake import cli
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
    assert "a file of samples has changed since" in capsys.readouterr().err
    _written(draws, "1", "2")
    assert offtake.run(_study(draws), out=out, device="numpy").summary_hash == saved
    assert config_yaml(_study(draws)) == (out / "config.yaml").read_text()


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
