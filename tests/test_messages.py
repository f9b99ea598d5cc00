"""What a mistake in a study looks like: every one at once, each at its file, line and column."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest

from offtake.correlation import correlation_matrix
from offtake.distributions import Sampled
from offtake.errors import InputError, Mistake
from offtake.portfolio import load, read

EXAMPLE = Path(__file__).parent / "data" / "example.yaml"
EXAMPLE_TEXT = EXAMPLE.read_text(encoding="utf-8")

SMALL = """\
portfolio:
  name: small
  start: 2026-01-01
  quarters: 8
  deals:
    acme:
      supplier: acme
      layer: compute
      hardware: gb300
      start: 2026-01-01
      ladder:
        first: {after: 0, gw: 0.2}
        full: {after: 4, gw: 1.0}
      term: 28
      pays:
        cloud: {kind: commitment, total: 38.0}
world:
  factors:
    demand: {initial: 2.4}
    revenue: {initial: 20.0}
  hardware:
    gb300: {h100e_per_gw: 1.2}
"""


def mistakes(source, overrides=()) -> list[Mistake]:
    with pytest.raises(InputError) as caught:
        load(source, overrides)
    return list(caught.value.mistakes)


@pytest.fixture
def study_file(tmp_path, monkeypatch):
    """Writes SMALL with one piece of text replaced, as study.yaml in the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(old: str = "", new: str = "") -> str:
        assert old in SMALL
        Path("study.yaml").write_text(SMALL.replace(old, new, 1) if old else SMALL, encoding="utf-8")
        return "study.yaml"

    return write


def said(source, overrides=()) -> list[str]:
    return [str(mistake) for mistake in mistakes(source, overrides)]


def test_the_small_study_is_valid(study_file):
    assert load(study_file()).portfolio.name == "small"


# ---- single mistakes: replaced text → exactly this message -----------------------------------------------

CASES = {
    "unknown key": (
        "      term: 28",
        "      term: 28\n      slipp: 1",
        "study.yaml:15:7: portfolio.deals.acme.slipp: unknown key; did you mean 'slip'?",
    ),
    "unknown key inside a leg": (
        "total: 38.0}",
        "total: 38.0, take_or_pai: 0.9}",
        "study.yaml:16:48: portfolio.deals.acme.pays.cloud.take_or_pai: unknown key;"
        " did you mean 'take_or_pay'?",
    ),
    "no target key runs code": (
        "  name: small",
        "  name: small\n  _target_: os.system",
        "study.yaml:3:3: portfolio._target_: unknown key; there are: name, start, quarters, buyer, deals",
    ),
    "kind": (
        "kind: commitment",
        "kind: comitment",
        "study.yaml:16:23: portfolio.deals.acme.pays.cloud.kind: must be one of commitment, purchase,"
        " hosting, power; did you mean 'commitment'?",
    ),
    "enum": (
        "layer: compute",
        "layer: computer",
        "study.yaml:8:14: portfolio.deals.acme.layer: must be one of compute, chips or site, not the text"
        " 'computer'; did you mean 'compute'?",
    ),
    "missing": (
        "  quarters: 8\n",
        "",
        "study.yaml:1:1: portfolio.quarters: is required",
    ),
    "sexagesimal is text": (
        "term: 28",
        "term: 12:30:00",
        "study.yaml:14:13: portfolio.deals.acme.term: must be a number, not the text '12:30:00'",
    ),
    "no is text": (
        "term: 28",
        "term: no",
        "study.yaml:14:13: portfolio.deals.acme.term: must be a number, not the text 'no'",
    ),
    "no is not false": (
        "term: 28",
        "term: 28\n      exclusive: no",
        "study.yaml:15:18: portfolio.deals.acme.exclusive: must be true or false, not the text 'no';"
        " write false",
    ),
    "true is not one": (
        "term: 28",
        "term: true",
        "study.yaml:14:13: portfolio.deals.acme.term: must be a number, not true",
    ),
    "quoted number": (
        "quarters: 8",
        "quarters: '8'",
        "study.yaml:4:13: portfolio.quarters: must be a whole number, not the text '8';"
        " write it without quotes or underscores",
    ),
    "nan": (
        "total: 38.0",
        "total: .nan",
        "study.yaml:16:42: portfolio.deals.acme.pays.cloud.total: must be a finite number, not nan",
    ),
    "inf": (
        "total: 38.0",
        "total: .inf",
        "study.yaml:16:42: portfolio.deals.acme.pays.cloud.total: must be a finite number, not inf",
    ),
    "beyond the doubles": (
        "total: 38.0",
        "total: 1e400",
        "study.yaml:16:42: portfolio.deals.acme.pays.cloud.total: must be a finite number, not inf",
    ),
    "negative volatility": (
        "demand: {initial: 2.4}",
        "demand: {initial: 2.4, volatility: -0.1}",
        "study.yaml:19:40: world.factors.demand.volatility: must be at least 0, not -0.1",
    ),
    "negative hazard": (
        "term: 28",
        "term: 28\n      cancel: {hazard: -0.02}",
        "study.yaml:15:24: portfolio.deals.acme.cancel.hazard: must be at least 0, not -0.02",
    ),
    "probability above one": (
        "gw: 1.0}",
        "gw: 1.0, follow_through: 1.2}",
        "study.yaml:13:51: portfolio.deals.acme.ladder.full.follow_through: must be at most 1, not 1.2",
    ),
    "magnitude": (
        "total: 38.0",
        "total: 38000000",
        "study.yaml:16:42: portfolio.deals.acme.pays.cloud.total: must be at most 1000000, not 38000000;"
        " is the unit right?",
    ),
    "overflow": (
        "total: 38.0",
        "total: 1e30",
        "study.yaml:16:42: portfolio.deals.acme.pays.cloud.total: must be at most 1000000, not 1e+30;"
        " is the unit right?",
    ),
    "gigawatts": (
        "gw: 1.0}",
        "gw: 1e5}",
        "study.yaml:13:30: portfolio.deals.acme.ladder.full.gw: must be at most 10000, not 100000;"
        " is the unit right?",
    ),
    "horizon": (
        "quarters: 8",
        "quarters: 1000000000",
        "study.yaml:4:13: portfolio.quarters: must be at most 400, not 1000000000",
    ),
    "no such date": (
        "start: 2026-01-01\n  quarters",
        "start: 2026-02-30\n  quarters",
        "study.yaml:3:10: portfolio.start: no such date: day is out of range for month",
    ),
    "not a date": (
        "start: 2026-01-01\n  quarters",
        "start: 2026\n  quarters",
        "study.yaml:3:10: portfolio.start: must be a date, as in 2026-01-31, not 2026",
    ),
    "unknown hardware": (
        "hardware: gb300\n",
        "hardware: gb30\n",
        "study.yaml:9:17: portfolio.deals.acme.hardware: no hardware is named 'gb30'; did you mean 'gb300'?",
    ),
    "unknown factor": (
        "total: 38.0",
        "total: 38.0, index: hardware_prize",
        "study.yaml:16:55: portfolio.deals.acme.pays.cloud.index: no factor is named 'hardware_prize';"
        " did you mean 'hardware_price'?",
    ),
    "unsorted rungs": (
        "after: 4",
        "after: 0",
        "study.yaml:13:23: portfolio.deals.acme.ladder.full.after: rungs must be sorted by 'after',"
        " each later than the one before",
    ),
    "shrinking rungs": (
        "gw: 1.0",
        "gw: 0.1",
        "study.yaml:13:30: portfolio.deals.acme.ladder.full.gw: is below the rung before (0.2);"
        " gw is cumulative",
    ),
    "term required": (
        "      term: 28\n",
        "",
        "study.yaml:6:5: portfolio.deals.acme.term: is required by the commitment 'cloud'",
    ),
    "term and life": (
        "term: 28",
        "term: 28\n      life: 20",
        "study.yaml:15:7: portfolio.deals.acme.life: a deal has a term or a life, not both",
    ),
    "hardware required": (
        "      hardware: gb300\n",
        "",
        "study.yaml:6:5: portfolio.deals.acme.hardware: is required for compute",
    ),
    "empty portfolio": (
        SMALL[SMALL.index("    acme:") : SMALL.index("world:")],
        "    {}\n",
        "study.yaml:6:5: portfolio.deals: must not be empty",
    ),
    "required factor": (
        "    demand: {initial: 2.4}\n",
        "",
        "study.yaml:18:3: world.factors.demand: is required",
    ),
    "distribution family": (
        "term: 28",
        "term: 28\n      slip: {dist: triangle, low: 0, high: 2}",
        "study.yaml:15:13: portfolio.deals.acme.slip: is neither a number nor a known distribution;"
        " did you mean 'triangular'?",
    ),
    "distribution parameter": (
        "term: 28",
        "term: 28\n      slip: {dist: uniform, low: 3, high: 2}",
        "study.yaml:15:13: portfolio.deals.acme.slip: low must be below high",
    ),
    "resolver": (
        "supplier: acme",
        "supplier: ${oc.env:HOME}",
        "study.yaml:7:17: portfolio.deals.acme.supplier: '${oc.env:HOME}' is not allowed;"
        " only references to other keys, as in ${..start}",
    ),
    "reference to nothing": (
        "supplier: acme",
        "supplier: ${.nothing}",
        "study.yaml:7:17: portfolio.deals.acme.supplier: '${.nothing}' refers to nothing:"
        " Interpolation key 'nothing' not found",
    ),
    "not a reference": (
        "supplier: acme",
        "supplier: ${acme",
        "study.yaml:7:17: portfolio.deals.acme.supplier: '${acme' is not a reference;"
        " write ${key}, ${.sibling} or ${..cousin}",
    ),
    "duplicate key": (
        "term: 28",
        "term: 28\n      term: 30",
        "study.yaml:15:7: portfolio.deals.acme.term: duplicate key; the first is in line 14",
    ),
    "object tag": (
        "supplier: acme",
        "supplier: !!python/object/apply:os.system [id]",
        "study.yaml:7:17: portfolio.deals.acme.supplier: tag !!python/object/apply:os.system"
        " is not allowed here",
    ),
    "key that is a list": (
        "  name: small",
        "  ? [a, b]\n  : 3\n  name: small",
        "study.yaml:2:5: portfolio: a key must be plain text",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_mistake(study_file, case):
    old, new, expected = CASES[case]
    messages = said(study_file(old, new))
    assert expected in messages
    # Nothing else is claimed, except what a key set to a wrong tag or left out entails.
    assert len(messages) == 1 or case in {"object tag"}, messages


# ---- names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../etc", "a..b", '"nul\\0"', "🚀", "x" * 10_000, ".hidden", "a b", "a/b", '""']
)
def test_names_that_are_refused(study_file, name):
    shown = f'? "{name}"\n    :' if len(name) > 1000 else f"{name}:"
    (mistake,) = mistakes(study_file("    acme:", f"    {shown}"))
    assert "not a name" in mistake.message or "not allowed" in mistake.message
    assert mistake.location.startswith("study.yaml:6:")
    assert len(str(mistake)) < 400


@pytest.mark.parametrize("name", ["a", "AWS", "model-4.5", "x_1", "9" * 64])
def test_names_that_are_accepted(study_file, name):
    study = load(study_file("    acme:", f"    {name}:"))
    assert list(study.portfolio.deals) == [name]


def test_a_name_with_a_dot_can_be_overridden(study_file):
    study = load(study_file("    acme:", "    model-4.5:"), ["portfolio.deals.model-4.5.term=12"])
    assert study.portfolio.deals["model-4.5"].term == 12


# ---- the file itself -------------------------------------------------------------------------------------


def test_missing_file(tmp_path):
    assert said(str(tmp_path / "none.yaml")) == [f"{tmp_path}/none.yaml: no such file"]


def test_folder_for_a_file(tmp_path):
    assert said(str(tmp_path)) == [f"{tmp_path}: is a folder, not a file"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x7fELF\0\0\x01", "x.yaml: is a binary file, not YAML text"),
        (b"name: \xff\xfe", "x.yaml: is not UTF-8 text (byte 6)"),
        (b"", "x.yaml: is empty"),
        (b"# nothing\n", "x.yaml: is empty"),
        (b"- a\n- b\n", "x.yaml: must be a mapping of keys to values"),
        (b"just text", "x.yaml: must be a mapping of keys to values"),
        (b"- !mine a\n", "x.yaml:1:3: 0: tag !mine is not allowed here"),
        (
            b"a: 1\n---\nb: 2\n",
            "x.yaml:2:1: expected a single document in the stream, but found another document",
        ),
        (
            b"portfolio:\n\tname: x\n",
            "x.yaml:2:1: found character '\\t' that cannot start any token; indent with spaces, not tabs",
        ),
        (b"a: {b: 1\n", "x.yaml:2:1: expected ',' or '}', but got '<stream end>'"),
        (b"a: 1\nb: \x07\n", "x.yaml:2:4: character U+0007 is not allowed"),
        (b"a: *nowhere\n", "x.yaml:1:4: found undefined alias 'nowhere'"),
    ],
)
def test_what_is_no_study_at_all(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_bytes(content)
    assert said("x.yaml") == [message]


@pytest.mark.parametrize("text", ["a: " + "[" * 3000 + "]" * 3000, "a: " + "{b: " * 3000 + "}" * 3000])
def test_deep_nesting(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(text)
    (message,) = said("x.yaml")
    assert message.startswith("x.yaml:1:")
    assert message.endswith("nested deeper than 64 levels")


def test_deep_block_nesting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text("".join(" " * depth + "a:\n" for depth in range(3000)))
    (message,) = said("x.yaml")
    assert message == "x.yaml:64:64: nested deeper than 64 levels"


def test_alias_bomb(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 10)]
    Path("x.yaml").write_text("\n".join(lines))
    (message,) = said("x.yaml")
    assert message.endswith("aliases expand to too much")


def test_alias_of_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text("a: &a [*a]\n")
    (message,) = said("x.yaml")
    assert message.endswith("aliases expand to too much")


def test_aliases_and_merge_keys_work(study_file):
    text = "        first: &rung {after: 0, gw: 0.2}\n        full: {<<: *rung, after: 4, gw: 1.0}"
    study = load(study_file(SMALL[SMALL.index("        first:") : SMALL.index("      term")], text + "\n"))
    assert [(rung.after, rung.gw) for rung in study.portfolio.deals["acme"].ladder.values()] == [
        (0, 0.2),
        (4, 1),
    ]


@pytest.mark.parametrize("change", ["bom", "crlf"])
def test_bom_and_crlf_are_accepted_with_the_same_positions(tmp_path, monkeypatch, change):
    monkeypatch.chdir(tmp_path)
    text = SMALL.replace("term: 28", "term: 28\n      slipp: 1")
    encoded = text.encode("utf-8-sig") if change == "bom" else text.replace("\n", "\r\n").encode()
    Path("x.yaml").write_bytes(encoded)
    (mistake,) = mistakes("x.yaml")
    assert mistake.location == "x.yaml:15:7"


def test_a_symlink_is_read_and_shown_as_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("real.yaml").write_text(SMALL.replace("term: 28", "term: x"))
    Path("link.yaml").symlink_to("real.yaml")
    assert said("link.yaml")[0].startswith("link.yaml:14:13: ")


# ---- numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "value"),
    [("1e2", 100.0), ("1.0e+2", 100.0), ("010", 10), ("+7", 7), ("7.", 7.0), (".5", 0.5), ("1E1", 10.0)],
)
def test_numbers_are_those_of_yaml_1_2(study_file, written, value):
    """1e2 is a number, and 010 is ten: YAML 1.2 has no leading-zero octals."""
    assert load(study_file("term: 28", f"term: {written}")).portfolio.deals["acme"].term == value


def test_a_number_with_underscores_is_text(study_file):
    (message,) = said(study_file("term: 28", "term: 2_8"))
    assert message.endswith("must be a number, not the text '2_8'; write it without quotes or underscores")


@pytest.mark.parametrize("paths", ["1e6", "1.0e+6", "1000000"])
def test_paths_may_be_a_whole_float(study_file, paths):
    study = load(study_file(), [f"study.paths={paths}"])
    assert study.study.paths == 10**6
    assert isinstance(study.study.paths, int)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("study.seed=-1", "must be at least 0, not -1"),
        ("study.seed=18446744073709551616", "must be at most 18446744073709551615"),
        ("study.seed=1.5", "must be a whole number, not 1.5"),
        ("study.seed=true", "must be a whole number, not true"),
        ("study.paths=0", "must be at least 1, not 0"),
        ("study.paths=1e12", "must be at most 8589934592, not 1000000000000"),
        ("study.keep_paths=-1", "must be at least 0, not -1"),
        ("device.name=cudaa", "must be one of auto, cuda, jax, numpy or null"),
        ("device.arithmetic=loose", "must be one of strict or fast"),
        ("executor.name=dask", "must be one of local or ray"),
        ("executor.workers=0", "must be at least 1, not 0"),
        ("portfolio.quarters=0", "must be at least 1, not 0"),
        ("portfolio.deals.acme.cancel={hazard:0.1,notice:1.5}", "must be a whole number, not 1.5"),
        ("portfolio.deals.acme.stretch=0", "must be above 0, but goes down to 0"),
        ("portfolio.deals.acme.size=-1", "must be at least 0, but goes down to -1"),
        (
            "portfolio.deals.acme.size={quantiles:{0.1:0.8,0.5:1},min:-2}",
            "goes down to -0.0144; the tail goes on beyond the points; a min ends it",
        ),
        ("portfolio.deals.acme.size={quantiles:{0.1:0.8,0.5:1,0.9:9}}", "but goes down to -0.0144"),
        ("world.factors.demand.initial={quantiles: {0.5: 2}, max: -1}", "but goes down to -1"),
        ("portfolio.deals.acme.stretch=1e-60", "must be above 0, but goes down to 0"),
        ("portfolio.deals.acme.stretch={dist: gamma, shape: 0.01, scale: 1}", "but goes down to 0"),
        (
            "portfolio.deals.acme.stretch={dist: normal, mean: 1.25, sd: 0.2}",
            "must be above 0, but goes down to -0.05; 6.5 standard deviations below the mean",
        ),
        (
            "world.factors.demand.initial={dist: normal, mean: 1, sd: 0.2}",
            "must be above 0, but goes down to -0.3",
        ),
        ("portfolio.deals.acme.slip_loading={supply_chain:0.7,region:0.4}", "add up to at most 1"),
        ("world.slip_loading={supply_chain:0.7,region:0.4}", "add up to at most 1"),
        (
            "study.thresholds=[{metric:fundings,op:'>',level:1}]",
            "no metric is named 'fundings'; did you mean",
        ),
        ("study.until={metric:cash,statistic:p96,rel_se:0.1}", "must be one of mean, p01"),
        ("study.until={metric:reach_7,statistic:mean,rel_se:0.1}", "no metric is named 'reach_7'"),
        ("portfolio.buyer={floor:5,target:2}", "is below the floor (5)"),
        ("study.reach=[0.3,0.30000001]", "names a level twice; levels are told apart by six digits"),
        (
            "study.thresholds=[{metric:lateness,op:'>',level:1}]",
            "'lateness' is of each deal or factor; only totals can be named here",
        ),
        (
            "portfolio.deals.acme.slip={dist:uniform,low:0,high:1,mode:0}",
            "unknown key; there are: driver, loading, dist, low, high",
        ),
        ("portfolio.deals.acme.start=1900-01-01", "may begin more than 400 quarters before the study"),
    ],
)
def test_overrides_are_checked_too(study_file, override, message):
    (mistake,) = mistakes(study_file(), [override])
    assert mistake.location == "command line"
    assert message in str(mistake)


def test_a_threshold_s_mistakes_are_reported_together(study_file):
    said = mistakes(study_file(), ["study.thresholds=[{metric:cashh,op:'==',level:x}]"])
    assert [mistake.path for mistake in said] == [
        f"study.thresholds.0.{key}" for key in ("level", "metric", "op")
    ]


def test_a_value_with_a_tag_is_one_mistake(study_file):
    (mistake,) = mistakes(study_file("total: 38.0", "total: !!float 38"))
    assert mistake.message == "tag !!float is not allowed here"


def test_a_comma_in_a_number_is_explained(study_file):
    said = mistakes(study_file("total: 38.0", "total: 14,000.0"))
    assert [mistake.hint for mistake in said] == ["a comma begins another key; write 1,000 as 1000"]


def test_an_empty_out_is_refused(study_file):
    (mistake,) = mistakes(study_file(), ["out="])
    assert str(mistake) == "command line: out: must not be empty"


def test_a_choice_that_is_nowhere_is_added_with_a_plus():
    (mistake,) = mistakes("openai", ["deal@portfolio.deals.x=aws"])
    assert (mistake.path, mistake.hint) == ("deal@portfolio.deals.x", "+deal@portfolio.deals.x=… adds it")


def test_the_largest_seed_is_accepted(study_file):
    assert load(study_file(), ["study.seed=18446744073709551615"]).study.seed == 2**64 - 1


# ---- all at once -----------------------------------------------------------------------------------------


def test_mistakes_of_every_kind_are_reported_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (
        SMALL.replace("term: 28", "term: 28\n      slipp: 1")
        .replace("after: 4, gw: 1.0", "after: 0, gw: 1.0")
        .replace("demand: {initial: 2.4}", "demand: {initial: no}")
        .replace("  quarters: 8", "  quarters: 8\n  quarters: 9")
        .replace("hardware: gb300\n", "hardware: gb30\n")
    )
    Path("x.yaml").write_text(text)
    assert said("x.yaml", ["study.seed=-1"]) == [
        "x.yaml:5:3: portfolio.quarters: duplicate key; the first is in line 4",
        "x.yaml:10:17: portfolio.deals.acme.hardware: no hardware is named 'gb30'; did you mean 'gb300'?",
        "x.yaml:14:23: portfolio.deals.acme.ladder.full.after: rungs must be sorted by 'after',"
        " each later than the one before",
        "x.yaml:16:7: portfolio.deals.acme.slipp: unknown key; did you mean 'slip'?",
        "x.yaml:21:23: world.factors.demand.initial: must be a number, not the text 'no'",
        "command line: study.seed: must be at least 0, not -1",
    ]


def test_a_reported_deal_is_not_called_unknown_elsewhere(study_file):
    """A deal that cannot be read (no supplier) is still a known name for other deals."""
    other = (
        "    wait: {supplier: w, layer: compute, hardware: gb300, start: 2026-01-01, term: 4,"
        " blocked_while: acme, ladder: {a: {after: 0, gw: 1}}}\nworld:"
    )
    text = SMALL.replace("world:", other, 1).replace("      supplier: acme\n", "")
    Path("study.yaml").write_text(text)
    assert said("study.yaml") == [
        "study.yaml:6:5: portfolio.deals.acme.supplier: is required",
        "study.yaml:16:101: portfolio.deals.wait.blocked_while: 'acme' is not exclusive;"
        " set exclusive: true in 'acme'",
    ]


def test_str_of_an_input_error_is_one_line_a_mistake():
    error = InputError([Mistake("a.yaml:1:2", "x", "bad", "do this"), Mistake("study", "", "worse")])
    assert str(error) == "a.yaml:1:2: x: bad; do this\nstudy: worse"
    assert error.exit_code == 2


# ---- references between deals ----------------------------------------------------------------------------


def blocked(**waits_for: str) -> dict:
    deals = {
        name: {
            "supplier": name,
            "layer": "compute",
            "hardware": "h",
            "start": "2026-01-01",
            "term": 4,
            "exclusive": True,
            "blocked_while": other or None,
            "ladder": {"only": {"after": 0, "gw": 1.0}},
        }
        for name, other in waits_for.items()
    }
    return {
        "portfolio": {"name": "p", "start": "2026-01-01", "quarters": 4, "deals": deals},
        "world": {
            "factors": {"demand": {"initial": 1.0}, "revenue": {"initial": 1.0}},
            "hardware": {"h": {"h100e_per_gw": 1.0}},
        },
    }


def test_blocking_cycles_are_named():
    assert said(blocked(a="b", b="c", c="a", d="a", e="")) == [
        "study: portfolio.deals.a.blocked_while: deals wait for each other: a → b → c → a"
    ]


def test_a_deal_cannot_wait_for_itself_or_for_nothing():
    assert said(blocked(a="a", b="zebra")) == [
        "study: portfolio.deals.a.blocked_while: a deal cannot wait for itself",
        "study: portfolio.deals.b.blocked_while: no deal is named 'zebra'; there are: a, b",
    ]


def test_the_blocker_must_be_exclusive_and_must_end():
    study = blocked(a="b", b="")
    study["portfolio"]["deals"]["b"] |= {"exclusive": False, "term": None}
    assert said(study) == [
        "study: portfolio.deals.a.blocked_while: 'b' has no term, so it never ends",
        "study: portfolio.deals.a.blocked_while: 'b' is not exclusive; set exclusive: true in 'b'",
    ] or said(study) == [
        "study: portfolio.deals.a.blocked_while: 'b' is not exclusive; set exclusive: true in 'b'",
        "study: portfolio.deals.a.blocked_while: 'b' has no term, so it never ends",
    ]


def test_life_hardware_and_sites():
    study = blocked(a="", b="")
    deals = study["portfolio"]["deals"]
    deals["a"] |= {"term": None, "life": 8}
    deals["b"] |= {"layer": "site", "follows_sites": True}
    assert [message.removeprefix("study: portfolio.deals.") for message in said(study)] == [
        "a.life: only chips are owned; a compute deal has a term",
        "b.follows_sites: only chips follow sites",
        "b.hardware: a site has no hardware of its own; chips are a deal of their own",
    ]


def test_receipts_name_known_deals_and_factors_and_do_not_expire_before_the_start():
    study = blocked(a="")
    study["portfolio"]["deals"]["a"]["receives"] = {
        "w": {
            "kind": "warrants",
            "share": "acme_share",
            "expiry": "2025-12-31",
            "tranches": {"t": {"gw": 1, "hurdle": 1, "shares": 1, "strike": 1}},
        },
        "v": {
            "kind": "vendor_investment",
            "milestone_from": ["a", "z"],
            "tranches": {"t": {"gw": 1.0, "amount": 1.0}},
        },
    }
    assert [message.removeprefix("study: portfolio.deals.a.receives.") for message in said(study)] == [
        "v.milestone_from.0: a deal's own milestones count anyway",
        "v.milestone_from.1: no deal is named 'z'; there are: a",
        "w.expiry: 2025-12-31 is before the portfolio's start 2026-01-01",
        "w.share: no factor is named 'acme_share'; there are: ai_equity, demand, hardware_price,"
        " market_supply, power_price, revenue, spot_price",
    ]


# ---- overrides -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("study.pathz=5", "study.pathz: unknown key; did you mean 'paths'?"),
        ("portfolio.deals.acne.slip=3", "portfolio.deals.acne: no such entry in deals; did you mean 'acme'?"),
        (
            "++portfolio.deals.zzz.slip=3",
            "portfolio.deals.zzz: no such entry in deals; a + in front adds a new one",
        ),
        ("~portfolio.deals.acne", "portfolio.deals.acne: no such key to delete; did you mean 'acme'?"),
        ("+portfolio.deals.acme.term=3", "portfolio.deals.acme.term: is there already; leave out the +"),
        ("study=quik", "study: no study is named 'quik'; did you mean 'quick'?"),
        (
            "portfolio=demo",
            "portfolio: a study in one file brings its own portfolio; override its keys instead",
        ),
        ("study=[quick,3]", "study: no study is named '3'; there are: large, quick, standard"),
        ("study=3", "study: no study is named '3'; there are: large, quick, standard"),
        ("device=abacus", "device: no device is named 'abacus'; there are: auto, cuda, jax, null, numpy"),
        ("study.thresholds.9.level=1", "study.thresholds.9: no such item; items are 0 to 3"),
        ("study.seed=1,2", "study.seed: several values at once; a list is [a, b], a sweep needs -m"),
        ("portfoliio=openai", "portfoliio: unknown key; did you mean 'portfolio'?"),
        ("announced=maybe", "announced: must be true or false, not the text 'maybe'"),
    ],
)
def test_what_is_wrong_with_an_override(study_file, override, expected):
    assert said(study_file(), [override]) == [f"command line: {expected}"]


def test_an_override_that_cannot_be_read(study_file):
    (message,) = said(study_file(), ["study.seed"])
    assert message.startswith("command line: cannot read override 'study.seed'")


def test_a_portfolio_that_does_not_exist():
    (message,) = said("dem")
    assert message == "study: no portfolio is named 'dem'; did you mean 'demo'?"


@pytest.mark.parametrize("source", [123, ["openai"], b"openai"])
def test_what_cannot_be_a_study_is_a_mistake(source):
    with pytest.raises(InputError, match=f"not {type(source).__name__}$"):
        load(source)


def test_a_run_option_does_not_belong_in_a_file(study_file):
    assert said(study_file("portfolio:\n", "out: x\nportfolio:\n")) == [
        "study.yaml:1:1: out: belongs on the command line, not in a study"
    ]


# ---- correlation -----------------------------------------------------------------------------------------


def with_correlation(**pairs) -> dict:
    study = blocked(a="")
    study["world"]["factors"]["steel"] = {"table": {"2026-01-01": 1.0}}
    study["world"]["correlation"] = pairs
    return study


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ({"demand": {"revenue": 1.2}}, "demand.revenue: must be between -1 and 1, not 1.2"),
        ({"demand": {"demand": 0.5}}, "demand.demand: a factor's correlation with itself is 1"),
        ({"demand": {"steel": 0.5}}, "demand.steel: 'steel' is a table, which correlates with nothing"),
        ({"demand": {"revenu": 0.5}}, "demand.revenu: no factor is named 'revenu'; did you mean 'revenue'?"),
        (
            {"demand": {"revenue": 0.5}, "revenue": {"demand": 0.4}},
            "revenue.demand: is given twice, as 0.5 and 0.4",
        ),
    ],
)
def test_correlation_pairs(pairs, expected):
    assert said(with_correlation(**pairs)) == [f"study: world.correlation.{expected}"]


def test_the_same_pair_twice_with_one_value_is_fine():
    twice = load(with_correlation(demand={"revenue": 0.5}, revenue={"demand": 0.5}))
    once = load(with_correlation(demand={"revenue": 0.5}))
    (names, matrix), (others, expected) = (correlation_matrix(study.world) for study in (twice, once))
    assert names == others
    np.testing.assert_array_equal(matrix, expected)
    assert matrix[names.index("demand"), names.index("revenue")] == 0.5


def test_contradicting_correlations_name_the_eigenvalue_and_the_pairs():
    pairs = {"demand": {"revenue": 0.9, "ai_equity": 0.9}, "revenue": {"ai_equity": -0.9}}
    (message,) = said(with_correlation(**pairs))
    assert message.startswith(
        "study: world.correlation: is not positive definite: smallest eigenvalue -0.8, mostly"
    )
    assert all(pair in message for pair in ("demand–revenue", "demand–ai_equity", "revenue–ai_equity"))
    study = with_correlation(**pairs)
    study["world"]["repair"] = "nearest"
    load(study)


# ---- sampled distributions -------------------------------------------------------------------------------


def test_samples_are_found_beside_the_file_that_names_them(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "draws.csv").write_text("slip,other\n1,2\n")
    text = SMALL.replace("term: 28", "term: 28\n      slip: {samples: {file: draws.csv, column: slip}}")
    (tmp_path / "sub" / "x.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    slip = load("sub/x.yaml").portfolio.deals["acme"].slip
    assert isinstance(slip, Sampled)
    assert Path(slip.samples.file) == tmp_path / "sub" / "draws.csv"
    assert said("sub/x.yaml", ["portfolio.deals.acme.slip.samples.column=slap"]) == [
        "command line: portfolio.deals.acme.slip.samples.column: 'draws.csv' has no column 'slap';"
        " did you mean 'slip'?"
    ]
    assert said("sub/x.yaml", ["portfolio.deals.acme.slip.samples.file=none.csv"])[0].endswith(
        "slip.samples.file: no such file: " + str(tmp_path / "none.csv")
    )


# ---- warnings --------------------------------------------------------------------------------------------


def test_a_total_that_looks_like_another_unit_is_warned_about(study_file):
    study = load(study_file("total: 38.0", "total: 3800"))
    assert study.warnings == [
        "study.yaml:16:42: portfolio.deals.acme.pays.cloud.total: 3800 is in US$ bn;"
        " no contract that large is known, is the unit right?"
    ]
    assert load(study_file()).warnings == []


def test_a_deal_that_begins_after_the_study_is_warned_about(study_file):
    late = "portfolio.deals.acme.start"
    assert load(study_file(), [f"{late}=2027-12-31"]).warnings == []
    for date in ("2028-01-01", "2126-02-01"):
        assert load(study_file(), [f"{late}={date}"]).warnings == [
            f"command line: {late}: {date} is after the study's last quarter;"
            " nothing of the deal may be seen, is the year right?"
        ]


# ---- anything at all ---------------------------------------------------------------------------------------

TOKENS = [
    "null", "{}", "[]", "-1", "1e400", ".nan", "no", "'x'", "{a: 1}", "[1, 2]", "${portfolio.name}", "${.x}",
    "${x", "!!int 3", "*a", "&a 3", "2026-01-01", "{dist: uniform}", "{dist: []}", "{quantiles: {0.5: a}}",
    "{samples: {file: x.csv}}", "{samples: 3}", "{table: 3}", "\t", "{kind: power}", "{kind: 3}", "???",
    "[[[]]]",
]  # fmt: skip


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_study_is_refused_with_a_message_and_never_crashes(tmp_path, seed):
    """Lines deleted, doubled, values and characters replaced: load returns or raises InputError."""
    chance = random.Random(seed)
    lines = EXAMPLE_TEXT.splitlines()
    for _ in range(chance.randint(1, 4)):
        index = chance.randrange(len(lines))
        damage = chance.randrange(4)
        values = list(re.finditer(r": ([^,{}#]+)", lines[index]))
        if damage == 0:
            del lines[index]
        elif damage == 1:
            lines.insert(index, chance.choice(lines))
        elif damage == 2 and values:
            value = chance.choice(values)
            lines[index] = (
                lines[index][: value.start(1)] + chance.choice(TOKENS) + lines[index][value.end(1) :]
            )
        else:
            column = chance.randrange(len(lines[index]) + 1)
            lines[index] = (
                lines[index][:column] + chance.choice("{}[]:,#&*!|>'%@` \t0a") + lines[index][column:]
            )
    (tmp_path / "x.yaml").write_text("\n".join(lines), encoding="utf-8")
    found: tuple[Mistake, ...] = ()
    try:
        load(tmp_path / "x.yaml")
    except InputError as error:
        found = error.mistakes or (Mistake("nowhere", "", "an error without a mistake"),)
    assert all(mistake.location.startswith(str(tmp_path)) for mistake in found)


@pytest.mark.parametrize(
    "damage",
    [
        {"quarters: 8": "quarters: 28.5"},
        {"  start: 2026-01-01\n  quarters": "  start: 2026-7-1\n  quarters"},
        {"kind: commitment": "kind: comitment"},
        {"kind: commitment, ": ""},
        {"after: 0, gw: 0.2": "after: 0, gw: lots"},
        {"quarters: 8": "quarters: 28.5", "supplier: acme": "supplier: 1", "kind: commitment": "kind: x"},
    ],
    ids=str,
)
def test_a_wrong_required_key_hides_no_mistake_of_others(damage, tmp_path):
    """The other mistake is one between keys, which are looked at once the keys are valid by themselves."""
    text = SMALL.replace("hardware: gb300", "hardware: gb301", 1)
    for right, wrong in damage.items():
        assert right in text, right
        text = text.replace(right, wrong, 1)
    (tmp_path / "study.yaml").write_text(text)
    found = said(tmp_path / "study.yaml")
    assert len(found) == 1 + len(damage), found
    assert any("no hardware is named 'gb301'; did you mean 'gb300'?" in line for line in found)


def test_a_name_that_is_no_deal_is_one_mistake():
    found = said("demo", ["world=demo", "stress=nvidia_delay"])
    assert len(found) == 3
    assert found[0].endswith(
        "portfolio.deals.nvidia: no deal: it has no supplier, layer, start, ladder;"
        " there are: cloud, chips, campus"
    )


@pytest.mark.parametrize(
    ("files", "overrides", "expected"),
    [
        (
            {"portfolio/own.yaml": "defaults:\n  - demo\n  - /deal@deals.mine: clod\nname: own\n"},
            ["portfolio=own"],
            "own.yaml:3:5: defaults: no deal is named 'clod'; there are: ",
        ),
        (
            {"portfolio/own.yaml": "defaults: [dmo]\nname: own\n"},
            ["portfolio=own"],
            "own.yaml:1:12: defaults: no portfolio is named 'dmo'; did you mean 'demo'?",
        ),
        (
            {"stress/own.yaml": "portfolio: {quarters: 5}\n"},
            ["portfolio=demo", "stress=own"],
            "stress: unknown key; a file of stress/ begins with the line '# @package _global_'",
        ),
        ({}, ["+stress=grid_delay"], "command line: stress: is chosen already; stress=… chooses another"),
        ({}, ["stress=null"], "command line: stress: must be a name, not null; stress=[] chooses none"),
    ],
)
def test_choices_that_are_nowhere_say_where_they_stand(tmp_path, files, overrides, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        read(None, overrides, config_dir=tmp_path)
    assert expected in str(caught.value)
    assert len(caught.value.mistakes) == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("portfolio.deals.acme.term=1e5", "term: must be at most 10000, not 100000"),
        ("portfolio.deals.acme.ladder.full.after=20000", "after: must be at most 10000, not 20000"),
        ("portfolio.deals.acme.slip=2e6", "slip: must be at most 10,000 quarters, but goes up to 2e+06"),
        (
            "portfolio.deals.acme.slip={quantiles: {0.1: 0, 0.5: 5000}}",
            "but goes up to 3.04e+04; the tail goes on beyond the points; a max ends it",
        ),
    ],
)
def test_times_beyond_every_study_are_refused(study_file, override, message):
    assert message in str(said(study_file(), [override]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("world.factors.demand.growth=40", "demand.growth: 40 is 4,000 % a year; is the unit right?"),
        (
            "world.factors.revenue.volatility=20",
            "revenue.volatility: 20 is 2,000 % a year; is the unit right?",
        ),
        ("portfolio.deals.acme.start=2005-01-01", "acme.term: ends before the study begins"),
        ("portfolio.buyer.on_distress=defer", "portfolio.buyer.on_distress: defer has no effect without"),
        ("+world.factors.demand.bust={jump: -0.1}", "demand.bust: has no effect without world.regime"),
    ],
)
def test_what_is_probably_meant_otherwise_is_warned_about(study_file, override, message):
    (warning,) = load(study_file(), [override]).warnings
    assert re.match(r"command line: |study\.yaml:\d+:\d+: ", warning)
    assert message in warning


def test_overrides_are_a_list():
    with pytest.raises(InputError, match=r"overrides: must be a list of texts; \['study.paths=5'\]"):
        load("demo", "study.paths=5")
