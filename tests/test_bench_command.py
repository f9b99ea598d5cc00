"""`offtake bench`: what a path costs, what devices can do, measuring in turn, and comparing."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from types import ModuleType

import common
import fake_cupy
import numpy as np
import pytest
from rich.console import Console

import offtake
from offtake import benchmark, cli, hal
from offtake.compile import compile_study
from offtake.hal import cuda_device, limits
from offtake.hal.limits import Limits
from offtake.study import DeviceChoice
from offtake.terminal_bench import print_bench
from offtake_kernels import philox, yardstick, yardstick_cuda
from offtake_kernels.cost import cost_of
from offtake_kernels.kernel import print_kernel
from offtake_kernels.program_numpy import Program, Scratch

RESULTS = Path(__file__).parent.parent / "bench" / "results"
SMALL = ["portfolio=anthropic", "device=numpy", "--seconds", "0.01"]


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(limits, "_SECONDS", 1e-9)
    monkeypatch.setattr(benchmark, "_FEW_PATHS", 256)


def _plan(deals: int, quarters: int):
    return compile_study(offtake.load(common.plain(deals, quarters))).plan


# ---- what a path costs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_what_a_path_records_is_what_the_kernel_writes(name: str):
    plan = compile_study(offtake.load(name)).plan
    assert cost_of(plan).values == print_kernel(plan).rows
    assert cost_of(plan).bytes == 8 * print_kernel(plan).rows


def test_cost_is_linear_in_quarters():
    short, middle, long = (cost_of(_plan(12, quarters)) for quarters in (41, 81, 121))
    assert long.operations - middle.operations == middle.operations - short.operations > 0
    # Ten blocks of four words for each of five factors.
    assert long.words - middle.words == middle.words - short.words == 10 * 4 * 5


def test_cost_counts_each_deal():
    two, three, four = (cost_of(_plan(deals, 41)).operations for deals in (12, 24, 36))
    assert four - three == pytest.approx(three - two, rel=0.02)


# ---- what a device can do ------------------------------------------------------------------------------


def test_the_multiply_adds_are_as_many_as_they_say():
    rod = yardstick.multiply_adds()
    x = np.array([0.0, 1.0, -3.5], np.float32)
    calls, (found,) = Program(rod.inputs, [rod.result]).bind(3, [x], Scratch(3))
    for call in calls:
        call()
    chains = [x * np.float32(1 / (2 + k)) for k in range(8)]
    times = 0
    for link in range(32):
        for k in range(8):
            chains[k] = chains[k] * np.float32(0.5 + 0.01 * k) + np.float32(0.1 * link + k)
            times += 1
    np.testing.assert_array_equal(found, sum(chains[1:], chains[0]))
    assert rod.amount == times


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to compile the kernel for the host")
def test_the_printed_yardstick_draws_the_words(monkeypatch):
    """Every thread writes what it drew, so that the last one's is left."""
    monkeypatch.setattr(yardstick_cuda, "_NEVER", "sum")
    monkeypatch.setattr(yardstick_cuda, "TURNS", 3)
    rod, fake = yardstick.words(), fake_cupy.Fake()
    source, arrays = yardstick_cuda.print_yardstick(rod)
    code = fake_cupy.build(source, ("-O1", "-DOFFTAKE_THREADS=256", "-DOFFTAKE_SHARED=0"))
    bench = yardstick_cuda.Bench(fake, rod, code, arrays, 0)
    bench.run()
    from offtake_kernels import ops_numpy

    last = 8 * 132 * 256 - 1
    streams = np.arange(yardstick.STREAMS, dtype=np.uint64)[:, None]
    expected = np.uint32(0)
    for turn in range(3):
        drawn = philox.draw_words(ops_numpy, 7, streams, np.uint64(3), np.uint64(turn), np.uint64(last))
        expected ^= np.bitwise_xor.reduce(
            np.concatenate([np.ravel(word) for word in drawn]).astype(np.uint32)
        )
    assert bench._out.get()[0] == expected
    assert bench.amount == (last + 1) * 3 * rod.amount


@pytest.mark.parametrize("name", ["numpy", "jax"])
def test_limits_are_measured(name: str, monkeypatch):
    if name == "jax":
        pytest.importorskip("jax")
    found = hal.open_device(DeviceChoice.model_validate({"name": name})).limits()
    assert 1e6 < found.words < found.multiply_adds < 1e15
    assert 1e8 < found.bytes < 1e14


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to compile the kernel for the host")
def test_limits_and_energy_of_gpus_add_up(monkeypatch, tmp_path):
    fake_cupy.install(monkeypatch, tmp_path, devices=[("Fake", 9, 0)] * 2)
    monkeypatch.setattr(yardstick_cuda, "TURNS", 1)
    monkeypatch.setattr(yardstick_cuda, "_BLOCKS_A_PROCESSOR", 1)
    monkeypatch.setattr(cuda_device, "rate", lambda work, amount: work() or float(amount))
    device = hal.open_device(DeviceChoice(name="cuda"))
    one = 132 * 256
    assert device.limits() == Limits(2.0 * one * 256, 2.0 * one * 64, 2.0 * 2 * limits.COPIED_BYTES)
    assert device.joules() is None  # no NVML here
    nvml = ModuleType("pynvml")
    nvml.NVMLError = RuntimeError  # type: ignore[attr-defined]
    nvml.nvmlInit = lambda: None  # type: ignore[attr-defined]
    nvml.nvmlDeviceGetHandleByPciBusId = {b"0000:00:00.0": 1500, b"0000:01:00.0": 2500}.get  # type: ignore[attr-defined]
    nvml.nvmlDeviceGetTotalEnergyConsumption = lambda handle: handle  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert device.joules() == 4.0


def test_the_limit_is_the_longer_of_computing_and_moving():
    found = Limits(multiply_adds=1000.0, words=100.0, bytes=10.0)
    assert found.paths_per_second(operations=500, words=50, moved=1) == pytest.approx(1.0)
    assert found.paths_per_second(operations=500, words=50, moved=20) == pytest.approx(0.5)


# ---- measuring -----------------------------------------------------------------------------------------


def test_devices_take_turns(monkeypatch):
    """So that a machine that slows down slows them all."""
    order = []

    class Recorded:
        most_units, numpy_cores = 1, 1.0

        def __init__(self, choice):
            self.choice = choice

        @classmethod
        def unusable(cls):
            return None

        def run(self, plan, first_path, paths, keep):
            order.append((self.choice.name, self.choice.arithmetic, paths))
            time.sleep(1e-10 * paths)

        def launch_paths(self, plan):
            return 1000

        def limits(self):
            return Limits(1e9, 1e9, 1e9)

        def joules(self):
            return None

        def describe(self):
            return {"kind": "recorded", "cores": 1}

    monkeypatch.setattr(hal, "backend_class", lambda name: Recorded)
    found = benchmark.measure(offtake.load("anthropic"), 1e-3)
    each = [("numpy", "strict"), ("jax", "strict"), ("jax", "fast"), ("cuda", "strict"), ("cuda", "fast")]
    assert [(one["backend"], one["arithmetic"]) for one in found["devices"]] == each
    rounds = [entry[:2] for entry in order[-benchmark.ROUNDS * len(each) :]]
    assert rounds == each * benchmark.ROUNDS
    # Whole blocks, each device as many paths in every round.
    for number, device in enumerate(each):
        paths = {entry[2] for entry in order[-benchmark.ROUNDS * len(each) :][number :: len(each)]}
        (size,) = paths
        assert size % 65_536 == 0 or size < 32_768, device


def test_bench_prints_and_writes(tmp_path, capsys):
    file = tmp_path / "here.json"
    assert cli.main(["bench", *SMALL, "--dollars", "2.5", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert all(len(line) <= 80 for line in printed.splitlines())
    found = json.loads(file.read_text())
    (numpy,) = found["devices"]
    assert numpy["backend"] == "numpy"
    rate = numpy["paths_per_second"]
    assert 0 < rate["least"] <= rate["median"] <= rate["most"]
    assert numpy["deal_quarters_per_second"] == pytest.approx(rate["median"] * 4 * 33)
    assert numpy["share_of_limit"] == pytest.approx(rate["median"] / numpy["limits"]["paths_per_second"])
    assert f"${1e9 / rate['median'] / 3600 * 2.5:,.2f}" in printed
    assert f"{rate['median']:,.0f}" in printed
    assert sorted(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("option", [["--seconds", "0"], ["--seconds", "nan"], ["--dollars", "-1"]])
def test_bench_refuses_nonsense(option, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bench", *option])
    assert stopped.value.code == 2
    assert "is not a number above 0" in capsys.readouterr().err


def test_bench_finds_the_folder_before_it_measures(tmp_path, capsys):
    assert cli.main(["bench", *SMALL, "--json", str(tmp_path / "no" / "here.json")]) == 2
    assert capsys.readouterr().err == f"--json: {tmp_path}/no is no folder\n"


def test_bench_finds_that_a_file_cannot_be_written_before_it_measures(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("offtake.benchmark.measure", None)
    assert cli.main(["bench", *SMALL, "--json", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"--json: {tmp_path} is a folder, not a file\n"


# ---- comparing -----------------------------------------------------------------------------------------


def _file(rate: float, backend: str = "numpy", deals: int = 4) -> dict:
    spread = {"median": rate, "least": 0.9 * rate, "most": 1.2 * rate}
    device = {"kind": "a processor", "cores": 2}
    one = {"backend": backend, "arithmetic": "strict", "device": device, "paths_per_second": spread}
    study = {"portfolio": "p", "deals": deals, "quarters": 41, "path": {"operations": 1000 * deals}}
    return {"study": study, "machine": {}, "devices": [one]}


def test_comparing_gives_ratios_and_what_the_rounds_allow():
    (row,) = benchmark.compare(_file(100.0), _file(300.0))
    assert row["ratio"] == pytest.approx({"median": 3.0, "least": 270 / 120, "most": 360 / 90})
    assert benchmark.compare(_file(100.0), _file(300.0, "jax")) == []


def test_comparing_on_the_command_line(tmp_path, capsys):
    first, second, other, broken = (tmp_path / f"{name}.json" for name in "abcd")
    first.write_text(json.dumps(_file(100.0)))
    second.write_text(json.dumps(_file(300.0)))
    other.write_text(json.dumps(_file(300.0, deals=5)))
    broken.write_text("[1, 2]")
    assert cli.main(["bench", "compare", str(first), str(second)]) == 0
    printed = capsys.readouterr().out
    assert "3.00" in printed
    assert all(len(line) <= 80 for line in printed.splitlines())
    assert cli.main(["bench", "compare", str(first), str(second), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["devices"][0]["ratio"]["median"] == 3.0
    assert cli.main(["bench", "compare", str(first), str(other)]) == 2
    assert "different studies: p (4 deals" in capsys.readouterr().err
    for file, said in ((broken, "is not what"), (tmp_path / "no.json", "cannot be read: No such file")):
        assert cli.main(["bench", "compare", str(file), str(second)]) == 2
        assert f"{file}: {said}" in capsys.readouterr().err


@pytest.mark.parametrize("file", sorted(RESULTS.glob("bench*.json")), ids=lambda f: f.stem)
def test_the_tables_of_every_machine_fit_80_columns(file, capsys):
    print_bench(json.loads(file.read_text()), 2.5, Console(width=80))
    text = capsys.readouterr().out
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
