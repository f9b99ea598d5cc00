"""The console script: stdout and stderr, exit codes, sweeps, completion, help that runs as printed.

Processes run the real dispatcher; where a handler needs the simulator, a stub stands in its place.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import types
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from offtake import cli, simulate
from offtake.checkpoints import write_manifest
from offtake.errors import DeviceError, InputError, NumericalError, OfftakeError, StoppedError
from offtake.portfolio import load
from offtake.resolved import config_hash, config_yaml
from offtake.study import Study

ROOT = Path(__file__).parent.parent
EXAMPLE = Path(__file__).parent / "data" / "example.yaml"
DEMO = ["portfolio=demo", "world=demo"]
BACKENDS = [
    {"backend": "cuda", "usable": False, "reason": "no cupy; try [cuda13]", "devices": []},
    {
        "backend": "numpy",
        "usable": True,
        "reason": None,
        "devices": [{"kind": "cpu", "cores": 2, "versions": {"numpy": "2.0"}}],
    },
]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "engine"), str(ROOT / "kernels")])}


def offtake(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "offtake.cli", *arguments],
        cwd=cwd, env=ENVIRONMENT | environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def _ran(study: Study, folder: Path) -> None:
    """What a run leaves for a replay."""
    (folder / "config.yaml").write_text(config_yaml(study))
    about = {"status": "complete", "config_hash": config_hash(study), "paths": study.study.paths}
    write_manifest(folder, about)


@pytest.fixture
def simulator(monkeypatch):
    """A stand-in for the simulator: records how it was called, and fails on demand."""
    calls: list[dict[str, Any]] = []
    failures: dict[int, BaseException] = {}

    def run(study, **options):
        calls.append({"study": study} | options)
        if study.study.seed in failures:
            raise failures[study.study.seed]
        if options["out"]:
            Path(options["out"]).mkdir(parents=True, exist_ok=True)
        damaged = ["unit 3: damaged"] if study.study.seed == 13 else []
        return types.SimpleNamespace(manifest={"damaged": damaged})

    def install(name: str, **members: Any) -> None:
        module = types.ModuleType(f"offtake.{name}")
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, f"offtake.{name}", module)

    install("simulate", run=run)
    install("estimate", estimate=lambda study, workers: {"paths": study.study.paths, "seconds": 1.5})

    class Headline:
        def __init__(self, _result, study):
            self.seed = study.study.seed

        def plain(self):
            return {"seed": self.seed}

    install("headline", Headline=Headline)
    install(
        "terminal",
        print_summary=lambda result, study, console: console.print(f"summary of {study.portfolio.name}"),
        print_announced=lambda study, console: console.print(f"announced: {study.portfolio.name}"),
        print_press=lambda lines, console: console.print(f"press: {lines}"),
        print_replay=lambda replay, console: console.print("replayed"),
    )
    install(
        "announce",
        announced=lambda study: study,
        announced_totals=lambda study: {"deals": len(study.portfolio.deals)},
    )
    install("path_replay", replay=lambda study, path: types.SimpleNamespace(to_dict=lambda: {"path": path}))
    install("press", reconcile=lambda study: {"openai": "lines"}.get(study.portfolio.name))
    monkeypatch.setattr("offtake.hal.describe", lambda: BACKENDS)
    monkeypatch.setattr("sys.argv", ["offtake"])
    return types.SimpleNamespace(calls=calls, failures=failures)


# ---- the dispatcher --------------------------------------------------------------------------------------


def test_version_and_help(capsys):
    assert cli.main(["--version"]) == 0
    assert re.fullmatch(r"offtake \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)
    assert cli.main(["run", "--version"]) == 0
    assert re.fullmatch(r"offtake \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(command in shown for command in cli.COMMANDS)
    assert cli.main([]) == 2


def test_an_unknown_command(capsys):
    assert cli.main(["rum"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "offtake: unknown command 'rum'; did you mean 'run'?\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError([]), 2), (DeviceError("no driver"), 3), (StoppedError("stopped"), 4),
        (NumericalError("NaN in cash"), 5), (OfftakeError("else"), 1), (RuntimeError("bug"), 1),
        (KeyboardInterrupt(), 130),
    ],
)  # fmt: skip
def test_exit_codes_are_stable_and_errors_are_one_message(monkeypatch, capsys, error, code):
    def fail(_arguments):
        raise error

    monkeypatch.setattr(cli, "_handler", lambda _name: fail)
    assert cli.main(["run"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    monkeypatch.setenv("OFFTAKE_TRACEBACK", "1")
    assert cli.main(["run"]) == code
    assert isinstance(error, KeyboardInterrupt) or "Traceback" in capsys.readouterr().err


def test_ctrl_c_that_a_library_turns_into_an_error_is_ctrl_c(monkeypatch, capsys):
    def swallowing(_arguments):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            raise AttributeError("a half-made object") from None

    monkeypatch.setattr(cli, "_handler", lambda _name: swallowing)
    # A shell has its background jobs ignore Ctrl-C, and so would this process.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert cli.main(["run"]) == 130
        assert capsys.readouterr().err == "offtake: interrupted\n"
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("command", ["", *cli.COMMANDS])
def test_help_fits_80_columns(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with suppress(SystemExit):
        cli.main([*command.split(), "--help"])
    said = capsys.readouterr().out
    assert "offtake" in said
    assert [line for line in said.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize(
    "command",
    [
        "schema",
        "show portfolio=demo",
        "devices",
        "validate portfolio=demo",
        "run portfolio=demo study.paths=9",
    ],
)
def test_a_reader_that_goes_away_is_no_error(command, tmp_path):
    piped = f"{shlex.quote(sys.executable)} -m offtake.cli {command} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", piped],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


def examples() -> list[tuple[str, str]]:
    found = []
    for command in cli.COMMANDS:
        done = offtake(command, "--help", cwd=ROOT)
        assert done.returncode == 0, done.stderr
        lines = done.stdout[done.stdout.index("Examples:") :].splitlines()[1:]
        found += [(command, line.strip()) for line in lines if line.strip()]
    return found


def test_the_examples_in_every_help_run_as_printed(simulator, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = examples()
    assert {command for command, _ in shown} == set(cli.COMMANDS)
    Path("runs/openai").mkdir(parents=True)
    _ran(load("openai"), Path("runs/openai"))
    for _, line in shown:
        words = shlex.split(line.split(" > ")[0])
        assert words[0] == "offtake"
        if words[1] == "bench":  # has nothing to measure where the simulator is a stub
            assert offtake(*words[1:], cwd=tmp_path).returncode == 0, line
        else:
            assert cli.main(words[1:]) == 0, line


# ---- run -------------------------------------------------------------------------------------------------


def test_run_prints_the_summary(simulator, capsys):
    assert cli.main(["run", *DEMO, "study=quick"]) == 0
    assert capsys.readouterr().out == "summary of demo\n"
    (call,) = simulator.calls
    assert call["study"].study.paths == 10**4
    assert (call["out"], call["resume"], call["force"]) == (None, False, False)


def test_flags_and_overrides_may_stand_in_any_order(simulator, capsys, tmp_path):
    assert (
        cli.main(["run", "--json", *DEMO, "--resume", f"out={tmp_path}/x", "force=true", "study.seed=3"]) == 0
    )
    assert json.loads(capsys.readouterr().out) == {"seed": 3}
    (call,) = simulator.calls
    assert (call["out"], call["resume"], call["force"]) == (f"{tmp_path}/x", True, True)


def test_run_a_file_with_overrides(simulator, capsys):
    assert cli.main(["run", str(EXAMPLE), "study=quick", "device=null", "study.seed=5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"seed": 5}
    assert simulator.calls[0]["study"].device.name == "null"


def test_dry_run_simulates_nothing(simulator, capsys):
    assert cli.main(["run", *DEMO, "study=quick", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "10,000" in out
    assert "seconds" in out
    assert cli.main(["run", *DEMO, "study=quick", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"paths": 10000, "seconds": 1.5}
    assert simulator.calls == []


def test_warnings_go_to_stderr(simulator, capsys):
    assert cli.main(["run", *DEMO, "portfolio.deals.cloud.pays.service.total=3800"]) == 0
    out, err = capsys.readouterr()
    assert out == "summary of demo\n"
    assert err.startswith(
        "warning: command line: portfolio.deals.cloud.pays.service.total: 3800 is in US$ bn"
    )


def test_a_damaged_checkpoint_is_named(simulator, capsys):
    assert cli.main(["run", *DEMO, "study.seed=13"]) == 0
    assert capsys.readouterr() == ("summary of demo\n", "warning: unit 3: damaged\n")


def test_ctrl_c_during_a_run_is_resumable(simulator, capsys, tmp_path):
    simulator.failures[7] = KeyboardInterrupt()
    assert cli.main(["run", *DEMO, f"out={tmp_path}/x"]) == 4
    assert capsys.readouterr().err == f"stopped; `--resume` with out={tmp_path}/x goes on\n"


def test_what_this_run_cannot_do(simulator, capsys):
    assert cli.main(["run", *DEMO, "--resume"]) == 2
    assert capsys.readouterr().err == "command line: --resume: needs out=DIR\n"
    assert cli.main(["run", *DEMO, "report=true"]) == 2
    assert "writes no report yet" in capsys.readouterr().err


def test_an_invalid_study_leaves_no_folder(tmp_path):
    done = offtake("run", *DEMO, "study.pathz=5", "study.seed=-1", "out=results", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "command line: study.pathz: unknown key; did you mean 'paths'?\n"
        "command line: study.seed: must be at least 0, not -1\n2 mistakes\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_pickles_are_not_loaded(tmp_path):
    """Hydra's --experimental-rerun would unpickle a file."""
    import pickle

    (tmp_path / "bad.pickle").write_bytes(pickle.dumps("x"))
    for flag in ("--experimental-rerun", "--experimental-rer"):
        done = offtake("run", flag, "bad.pickle", cwd=tmp_path)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_cfg_job_shows_the_composed_configuration(tmp_path):
    done = offtake("run", *DEMO, "--cfg", "job", "study.paths=5", "device=null", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "  paths: 5\n" in done.stdout
    assert "device:\n  name: 'null'\n" in done.stdout
    done = offtake(
        "run", str(EXAMPLE), "--cfg", "job", "study.paths=5", "portfolio.deals.acme.life=3", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "  name: example\n" in done.stdout
    assert "      life: 3\n" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_hydra_help(tmp_path):
    done = offtake("run", "--hydra-help", cwd=tmp_path)
    assert done.returncode == 0
    assert "--multirun,-m" in done.stdout


def test_config_dir(simulator, tmp_path, capsys):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "tiny.yaml").write_text("paths: 7\n")
    assert cli.main(["run", *DEMO, "study=tiny", "--config-dir", str(tmp_path)]) == 0
    assert simulator.calls[0]["study"].study.paths == 7
    assert cli.main(["run", *DEMO, "--config-dir", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err == f"command line: --config-dir: no such folder: {tmp_path}/none\n"


# ---- sweeps ----------------------------------------------------------------------------------------------


def test_a_failing_point_does_not_stop_the_others(simulator, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    simulator.failures[2] = NumericalError("NaN in cash")
    assert cli.main(["run", *DEMO, "-m", "study.seed=1,2,3", "out=sweep", "--json"]) == 5
    out, err = capsys.readouterr()
    assert [json.loads(line) for line in out.splitlines()] == [{"seed": 1}, {"seed": 3}]
    assert "point 1 failed: NaN in cash\n" in err
    assert err.count("NaN in cash") == 1
    assert "Traceback" not in err
    assert [call["study"].study.seed for call in simulator.calls] == [1, 2, 3]
    assert [Path(call["out"]) for call in simulator.calls] == [
        Path("sweep", name).absolute() for name in "012"
    ] or [call["out"] for call in simulator.calls] == ["sweep/0", "sweep/1", "sweep/2"]


def test_stopping_a_point_stops_the_sweep(simulator, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    simulator.failures[2] = StoppedError("stopped after 5 paths; the same command with --resume goes on")
    assert cli.main(["run", *DEMO, "-m", "study.seed=1,2,3", "out=sweep"]) == StoppedError.exit_code
    said = "point 1 stopped after 5 paths; the same command with --resume goes on\n"
    assert capsys.readouterr().err.endswith(said)
    assert [call["study"].study.seed for call in simulator.calls] == [1, 2]


def test_a_stopped_sweep_without_a_folder_says_where_it_goes_on(simulator, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    simulator.failures[2] = StoppedError("stopped after 5 paths; the same command with --resume goes on")
    assert cli.main(["run", *DEMO, "-m", "study.seed=1,2,3"]) == StoppedError.exit_code
    said = capsys.readouterr().err.splitlines()[-1]
    folder = re.fullmatch(
        r"point 1 stopped after 5 paths; the same command with out=(\S+) --resume goes on", said
    )
    assert folder, said
    del simulator.failures[2]
    simulator.calls.clear()
    assert cli.main(["run", *DEMO, "-m", "study.seed=1,2,3", f"out={folder[1]}", "--resume"]) == 0
    assert [call["resume"] for call in simulator.calls] == [True] * 3
    assert Path(simulator.calls[1]["out"]).absolute() == Path(folder[1], "1").absolute()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "study.seed=1,2", "--resume"], "command line: --resume: needs out=DIR\n"),
        (
            ["-m", "study.seed=1,2", "--cfg", "job"],
            "-m: is not for --cfg or --info; give one point\n",
        ),
        (
            ["--cfg", "job", "device=nope"],
            "device: no device is named 'nope'; there are: auto",
        ),
        (["-m", "study.seed=glob(no*)"], "command line: -m: the sweep has no points\n"),
        (["-m", "study.seed=1,2", "hydra/launcher=joblib"], "Could not find 'hydra/launcher/joblib'\n"),
    ],
)
def test_what_hydra_cannot_do_is_bad_input(simulator, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", *DEMO, *arguments]) == InputError.exit_code
    assert message in capsys.readouterr().err
    assert not simulator.calls


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_sweep_where_nothing_can_be_written_says_so(simulator, tmp_path, monkeypatch, capsys):
    tmp_path.chmod(0o555)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", *DEMO, "-m", "study.seed=1,2"]) == OfftakeError.exit_code
    assert re.match(r"cannot write \S*multirun", capsys.readouterr().err)


def test_a_sweep_of_a_file_over_a_group_and_a_key(simulator, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        cli.main(["run", str(EXAMPLE), "-m", "device=numpy,null", "portfolio.deals.acme.life=null,null"]) == 0
    )
    assert [call["study"].device.name for call in simulator.calls] == ["numpy", "numpy", "null", "null"]
    assert {Path(call["out"]).parts[0] for call in simulator.calls} <= {"multirun", "/"}


def test_an_invalid_point_is_bad_input(simulator, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", *DEMO, "-m", "study.seed=1,x"]) == 2
    assert "point 1 failed: command line: study.seed: must be a whole number" in capsys.readouterr().err


def test_the_process_is_put_back_after_hydra(simulator, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv, environment = list(sys.argv), dict(os.environ)
    logger, root = logging.getLogger("offtake.hal"), logging.getLogger()
    before = logger.disabled, root.level, list(root.handlers)
    assert cli.main(["run", *DEMO, "-m", "study.seed=1,2"]) == 0
    assert (sys.argv, dict(os.environ)) == (argv, environment)
    assert (logger.disabled, root.level, list(root.handlers)) == before


# ---- completion ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("offtake ru", "run show validate replay devices bench kernel schema"),
        ("offtake run portfolio=dem", "portfolio=demo"),
        ("offtake run portfolio=demo world=demo portfolio.deals.cl", "portfolio.deals.cloud."),
        ("offtake run x.yaml portfolio=demo world=demo study=q", "study=quick"),
    ],
)
def test_tab_completion(tmp_path, line, expected):
    done = offtake("-sc", "query=bash", cwd=tmp_path, COMP_LINE=line, COMP_POINT=str(len(line)))
    assert (done.returncode, done.stdout.strip()) == (0, expected), done.stderr


def test_completion_script_is_installed_for_this_program(tmp_path):
    (tmp_path / "offtake").write_text(
        f"#!{sys.executable}\nimport sys\nfrom offtake.cli import main\nsys.exit(main())\n"
    )
    (tmp_path / "offtake").chmod(0o755)
    script = (
        'set -e; PATH="$PWD:$PATH"; eval "$(offtake run -sc install=bash)"; complete -p offtake;'
        ' COMP_LINE="offtake run portfolio=dem"; COMP_POINT=25; COMP_CWORD=2; hydra_bash_completion;'
        ' echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("hydra_bash_completion offtake\nportfolio=demo\n")


# ---- the other commands ----------------------------------------------------------------------------------


def test_validate_reports_every_file_and_every_mistake(tmp_path):
    text = EXAMPLE.read_text(encoding="utf-8")
    (tmp_path / "good.yaml").write_text(text)
    (tmp_path / "bad.yaml").write_text(text.replace("quarters: 41", "quarters: 0"))
    (tmp_path / "worse.yaml").write_text(text.replace("seed: 7", "sed: 7"))
    done = offtake("validate", "good.yaml", "bad.yaml", "worse.yaml", "none.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == "good.yaml: valid (1 deals, 41 quarters from 2025-10-01)\n"
    assert done.stderr == (
        "bad.yaml:8:13: portfolio.quarters: must be at least 1, not 0\n"
        "worse.yaml:87:3: study.sed: unknown key; did you mean 'seed'?\n"
        "none.yaml: no such file\n3 mistakes\n"
    )


def test_validate_says_what_a_run_would_refuse(tmp_path, capsys):
    """Two deals whose slips have one CRC-32, by chance."""
    slip = {"dist": "expon", "mean": 1.0}
    deal = {"supplier": "acme", "layer": "site", "start": "2026-01-01", "slip": slip}
    deal |= {"ladder": {"all": {"after": 0, "gw": 1.0}}}
    portfolio = {"name": "own", "start": "2026-01-01", "quarters": 8}
    factors = {"demand": {"initial": 1.0}, "revenue": {"initial": 1.0}}
    deals = {"rnrsgud": deal, "aspjwwk": deal}
    study = {"portfolio": {**portfolio, "deals": deals}, "world": {"factors": factors}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(study))
    assert cli.main(["validate", str(tmp_path / "own.yaml")]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("have one CRC-32")) == ("", 1)


def test_validate_a_portfolio(capsys):
    assert cli.main(["validate", *DEMO]) == 0
    assert capsys.readouterr().out == "demo: valid (3 deals, 24 quarters from 2025-10-01)\n"
    with pytest.raises(SystemExit) as stopped:
        cli.main(["validate"])
    assert stopped.value.code == 2


def test_show(simulator, capsys):
    assert cli.main(["show", *DEMO]) == 0
    assert capsys.readouterr().out == "announced: demo\n"
    assert cli.main(["show", str(EXAMPLE), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"deals": 1, "press": None}
    assert cli.main(["show", "a.yaml", "b.yaml"]) == 2


def test_devices(simulator, capsys):
    assert cli.main(["devices"]) == 0
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()[1:]] == [
        "cuda     no      no cupy; try [cuda13]",
        "numpy    yes     cpu, cores 2, numpy 2.0",
    ]
    assert cli.main(["devices", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == BACKENDS


def test_schema_is_json(capsys):
    assert cli.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"].keys() >= {"portfolio", "world", "study"}


def test_replay(simulator, tmp_path, capsys):
    _ran(load(EXAMPLE), tmp_path)
    assert cli.main(["replay", str(tmp_path), "--path", "17", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": 17}
    assert cli.main(["replay", str(tmp_path), "--path", "17"]) == 0
    assert cli.main(["replay", str(tmp_path), "--path", "-1"]) == 2
    assert cli.main(["replay", str(tmp_path / "none"), "--path", "1"]) == 2


def test_a_precision_that_was_not_reached_is_warned_about(tmp_path, capsys):
    few = [*DEMO, "study.paths=100", "device=numpy"]
    until = "study.until={metric: total_spend, statistic: mean, rel_se: %s, max_paths: 200}"
    assert cli.main(["run", *few, until % "1e-9", f"out={tmp_path}"]) == 0
    warned = (
        r"warning: study\.until: after 200 paths the relative standard error of total_spend, mean, is 0\.\d+;"
    )
    assert re.search(warned + " 1e-09 was asked for\n", capsys.readouterr().err)
    assert cli.main(["run", *few, until % "1e-9", f"out={tmp_path}"]) == 0
    assert re.search(warned, capsys.readouterr().err)  # of the finished run, too
    assert cli.main(["run", *few, until % "0.9"]) == 0
    assert "study.until" not in capsys.readouterr().err


def test_the_study_s_thresholds_are_answered(capsys):
    asked = [
        "study.thresholds=[{metric: total_spend, op: '>', level: 60}, {metric: cash, op: '<', level: 20},"
        "{metric: cash, op: '<', level: -1}]"
    ]
    few = [*DEMO, "study.paths=500", "device=numpy", *asked]
    assert cli.main(["run", *few, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["thresholds"]
    study = load("demo", ["world=demo", "study.paths=500", "device=numpy", *asked])
    found = simulate.run(study)
    assert len(rows) == 1 + 2 * 24
    for row in rows:
        exact = found.probability(row["metric"], row["op"], row["level"], quarter=row["period"])
        assert exact is not None
        assert row["probability"] == {"value": pytest.approx(exact), "se": pytest.approx(exact.se)}
    cash = [row for row in rows if row["metric"] == "cash" and row["level"] == 20]
    likeliest = max(cash, key=lambda row: row["probability"]["value"])
    assert cli.main(["run", *few]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"\d+\.\d ±\d\.\d %  total_spend > 60\n", shown)
    share = 100 * likeliest["probability"]["value"]
    assert re.search(rf" {share:.1f} ±\d\.\d %  cash < 20 in {likeliest['period']}\n", shown)
    assert re.search(r"0\.0 ±\d\.\d %  cash < -1\n", shown)


def test_a_narrow_terminal_loses_no_number(tmp_path):
    wide = offtake("show", *DEMO, cwd=tmp_path, COLUMNS="80").stdout
    assert offtake("show", *DEMO, cwd=tmp_path, COLUMNS="40").stdout == wide
    assert "275.0" in wide


def test_huge_numbers_fit(capsys):
    huge = ["study.paths=100", "device=numpy", "world.factors.demand.growth=200"]
    assert cli.main(["run", *DEMO, *huge]) == 0
    out, err = capsys.readouterr()
    assert "20,000 % a year; is the unit right?" in err
    assert "…" not in out
    assert re.search(r"\d\.\d+e\+\d+ ±", out)
    assert max(map(len, out.splitlines())) <= 80


def test_output_goes_where_it_can(tmp_path):
    table = offtake("show", *DEMO, cwd=tmp_path)
    assert offtake("show", *DEMO, cwd=tmp_path, COLUMNS="0").stdout == table.stdout
    plain = offtake(
        "run", *DEMO, "study.paths=100", cwd=tmp_path, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"
    )
    assert (plain.returncode, plain.stderr) == (0, "")
    assert "Means ? standard error" in plain.stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        (">/dev/full", 1, "offtake: cannot write the output: No space left on device\n"),
        (">&-", 0, ""),
        (">&- 2>&-", 0, ""),
    ],
)
def test_an_output_that_takes_nothing_is_no_internal_error(tmp_path, redirection, code, said):
    command = shlex.join([sys.executable, "-m", "offtake.cli", "show", *DEMO])
    done = subprocess.run(
        f"{command} {redirection}",
        shell=True,
        cwd=tmp_path,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert (done.returncode, done.stderr) == (code, said)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "out="], "out: "),
        (
            ["run", "study.until={metric: spend, statistic: mean, rel_se: 0.1, max_paths: 10}"],
            "must be at least study.paths",
        ),
        (["bench", "device=null"], "null computes nothing that could be timed"),
    ],
)
def test_what_cannot_be_meant_is_refused(capsys, arguments, message):
    assert cli.main([arguments[0], *DEMO, *arguments[1:]]) == InputError.exit_code
    assert message in capsys.readouterr().err
