"""The CUDA backend on a small CuPy of the host: launches, the tally on the device, merging, and faults."""

from __future__ import annotations

import shutil

import fake_cupy
import numpy as np
import pytest
import simple

import offtake
from offtake import hal
from offtake.compile import compile_study
from offtake.errors import DeviceError
from offtake.hal import cuda_device, nvrtc
from offtake.portfolio import load
from offtake.study import DeviceChoice
from offtake_kernels import path_cuda
from offtake_kernels.bins import MOST_LANES
from offtake_kernels.layout import Plan
from offtake_kernels.tally import Tally, TallyBuilder

FIRST_PATH, PATHS, KEEP = 2**32 - 1000, 3000, 1100

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None, reason="no g++ to compile the kernel for the host"
)


@pytest.fixture
def cupy(monkeypatch, tmp_path) -> fake_cupy.Fake:
    return fake_cupy.install(monkeypatch, tmp_path / "cache")


def _plan(**settings) -> Plan:
    """A small study with a sign change, a metric that may have no value, and thresholds."""
    fee = {"kind": "commitment", "total": 10.0, "prepay": 0.2}
    cloud = simple.deal(slip={"quantiles": {0.1: 0.0, 0.9: 2.0}}, pays={"fee": fee})
    thresholds = [
        {"metric": "cash", "op": "<", "level": 4.0},
        {"metric": "cash", "op": "<=", "level": 0.0},
        {"metric": "unit_cost", "op": ">=", "level": 0.0},
        {"metric": "total_spend", "op": ">", "level": 1.0},
    ]
    study = simple.study(
        {"cloud": cloud},
        quarters=5,
        factors={"revenue": {"initial": 4.0, "volatility": 0.3}},
        settings={"paths": PATHS, "keep_paths": 10, "thresholds": thresholds, **settings},
    )
    return compile_study(study).plan


PLAN = _plan()


def _run(name: str, plan: Plan = PLAN, paths: int = PATHS, **choice):
    device = hal.open_device(DeviceChoice.model_validate({"name": name, **choice}))
    return device.run(plan, FIRST_PATH, paths, KEEP)


def _expected(plan: Plan = PLAN, paths: int = PATHS) -> Tally:
    return _run("numpy", plan, paths)[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_the_tally_is_numpys(cupy, name: str):
    plan = compile_study(load(name)).plan
    assert _run("cuda", plan, launch_paths=700)[0].digest() == _expected(plan).digest()


@pytest.mark.parametrize("launch", [256, 700, 1024, 3000, 100_000])
def test_the_launch_size_is_memory_only(cupy, launch: int):
    assert _run("cuda", launch_paths=launch)[0].digest() == _expected().digest()
    assert max(lanes for _, lanes in cupy.launches) == min(launch, PATHS)


def test_a_row_of_more_than_one_chunk(cupy):
    paths = 2 * 65_536 + 77
    plan = _plan(thresholds=[])
    assert _run("cuda", plan, paths, launch_paths=200_000)[0].digest() == _expected(plan, paths).digest()


def test_kept_paths_are_numpys(cupy):
    kept, expected = _run("cuda", launch_paths=700)[1], _run("numpy")[1]
    assert kept is not None
    assert expected is not None
    np.testing.assert_array_equal(kept.path, expected.path)
    for found, known in (
        (kept.quarter_values, expected.quarter_values),
        (kept.scalar_values, expected.scalar_values),
    ):
        assert list(found) == list(known)
        for metric, values in known.items():
            np.testing.assert_array_equal(found[metric].view(np.int32), values.view(np.int32), metric)


def test_values_that_are_not_finite_are_counted_with_their_first_path(cupy):
    growth = {"now": 2000.0, "later": 2000.0, "half_life": 1.0}
    factors = {"revenue": {"initial": 1.0, "growth": growth}}
    fee = {"kind": "commitment", "total": 10.0}
    plan = compile_study(
        simple.study({"cloud": simple.deal(pays={"fee": fee})}, quarters=5, factors=factors)
    ).plan
    found, expected = _run("cuda", plan, launch_paths=700)[0], _expected(plan)
    assert expected.nonfinite_row.size
    assert found.digest() == expected.digest()


def _hard_values(lanes: int, rows: int) -> np.ndarray:
    """Patterns of every kind: both signs, zeros, denormals, infinities, NaNs, -1, and runs of one value."""
    generator = np.random.default_rng(7)
    values = np.full((rows, lanes), np.float32(2.5))
    values[0] = generator.integers(0, 2**32, lanes, dtype=np.uint64).astype(np.uint32).view(np.float32)
    special = np.array(
        [0.0, -0.0, 1e-45, -1e-45, np.inf, -np.inf, np.nan, -np.nan, -1.0, 1.0, 3e38], np.float32
    )
    values[1] = special[generator.integers(0, special.size, lanes)]
    values[2] = np.repeat(special, -(-lanes // special.size))[:lanes]
    values[3] = -0.0
    values[4] = generator.normal(0, 3, lanes)
    values[5] = np.nan
    return values


def test_the_tally_kernel_on_hard_values(cupy):
    device = hal.open_device(DeviceChoice(name="cuda", launch_paths=70_000))
    assert isinstance(device, cuda_device.CudaDevice)
    (gpu,) = device._open(PLAN)
    slot, lanes = gpu._slots[0], 70_000
    rows = gpu._kernel.rows
    values = _hard_values(lanes, rows)
    slot.rows[: values.size] = values.ravel()
    given = slot.rows, np.uint32(lanes), np.uint64(FIRST_PATH)
    gpu._call("offtake_tally", (rows, 1, 1), given)
    assert gpu._table.counters.get()[1] == 0
    found, expected = TallyBuilder(rows, 0), TallyBuilder(rows, 0)
    for row, sums in gpu._table.collect(gpu._call):
        found.add_sums([row], sums)
    for row in range(rows):
        for begin in range(0, lanes, MOST_LANES):
            expected.add(row, values[row, begin : begin + MOST_LANES], FIRST_PATH + begin)
    assert found.build(lanes).digest() == expected.build(lanes).digest()
    assert gpu._table.counters.get().tolist() == [0, 0]


@pytest.mark.parametrize("gpus", [2, 3])
def test_every_visible_gpu_takes_a_share(cupy, gpus: int):
    cupy.devices = [("Fake", 9, 0)] * gpus
    tally, kept = _run("cuda", launch_paths=512)
    assert tally.digest() == _expected().digest()
    assert kept is not None
    np.testing.assert_array_equal(kept.path, FIRST_PATH + np.arange(KEEP, dtype=np.uint64))
    assert set(cupy.used) == set(range(gpus))


@pytest.mark.parametrize(("index", "used"), [(1, {1}), ([0, 2], {0, 2}), ("0,1", {0, 1}), ("all", {0, 1, 2})])
def test_the_index_chooses_gpus(cupy, index, used):
    cupy.devices = [("Fake", 9, 0)] * 3
    assert _run("cuda", index=index)[0].digest() == _expected().digest()
    assert set(cupy.used) == used


def test_a_gpu_that_is_not_there_or_too_old_is_named(cupy):
    with pytest.raises(DeviceError, match=r"device\.index=3: 1 GPUs are visible"):
        hal.open_device(DeviceChoice(name="cuda", index=(3,)))
    cupy.devices = [("Fake", 6, 1), ("Fake", 9, 0)]
    with pytest.raises(DeviceError, match=r"index=0: compute capability 6\.1; 7\.5 or later"):
        hal.open_device(DeviceChoice(name="cuda", index=(0,)))
    _run("cuda")
    assert set(cupy.used) == {1}
    cupy.devices = [("Fake", 7, 0)]
    with pytest.raises(DeviceError, match=r"compute capability 7\.0; 7\.5 or later"):
        hal.open_device(DeviceChoice(name="cuda"))
    assert hal.settle(DeviceChoice(), 1e9).name != "cuda"


# Memory.


def test_memory_that_is_short_halves_the_launch_and_keeps_the_answer(cupy):
    expected = _expected().digest()
    cupy.memory = 40_000_000
    device = hal.open_device(DeviceChoice(name="cuda", launch_paths=1 << 20))
    assert device.launch_paths(PLAN) < 1 << 20
    assert device.run(PLAN, FIRST_PATH, PATHS, 0)[0].digest() == expected


@pytest.mark.parametrize("failures", [1, 3])
def test_a_launch_without_memory_is_done_again_in_halves(cupy, failures: int):
    expected, whole = _run("numpy")
    cupy.short_launches = failures
    tally, kept = _run("cuda", launch_paths=2048)
    assert tally.digest() == expected.digest()
    assert kept is not None
    assert whole is not None
    np.testing.assert_array_equal(kept.path, whole.path)
    assert ("offtake_paths", 1024) in cupy.launches


def test_a_gpu_without_memory_fails_and_does_not_go_on_for_ever(cupy):
    cupy.short_launches = 10**9
    with pytest.raises(DeviceError, match="not even a launch of"):
        _run("cuda")
    cupy.short_launches = 0
    cupy.memory = 2_000_000
    with pytest.raises(DeviceError, match=r"out of memory.*use a smaller portfolio"):
        _run("cuda")


def test_terms_that_constant_memory_cannot_hold_are_refused(cupy, monkeypatch):
    monkeypatch.setattr(cuda_device, "_CONSTANT_BYTES", 100)
    with pytest.raises(DeviceError, match=r"the terms of \d+ deals take [\d,]+ bytes.*room for 100; use"):
        _run("cuda")
    assert not cupy.launches


def test_a_table_that_overflows_is_emptied_and_its_launches_done_again(cupy, monkeypatch):
    monkeypatch.setattr(path_cuda, "_SLOTS_A_ROW", 1)
    monkeypatch.setattr(path_cuda, "_SMALLEST_TABLE", 64)
    launches = len(range(0, PATHS, 700))
    for launch in (700, 256):
        assert _run("cuda", launch_paths=launch)[0].digest() == _expected().digest()
    assert len(cupy.launches) > launches


def test_a_table_that_is_too_small_for_any_launch_is_an_error(cupy, monkeypatch):
    monkeypatch.setattr(path_cuda, "_SLOTS_A_ROW", 1)
    monkeypatch.setattr(path_cuda, "_SMALLEST_TABLE", 4)
    with pytest.raises(DeviceError, match="overflow the GPU's table"):
        _run("cuda", launch_paths=700)


def test_a_gpu_that_failed_begins_anew(cupy):
    device = hal.open_device(DeviceChoice(name="cuda", launch_paths=700))
    cupy.launch_fault = "cudaErrorUnknown"
    with pytest.raises(DeviceError):
        device.run(PLAN, FIRST_PATH, PATHS, 0)
    cupy.launch_fault = ""
    assert device.run(PLAN, FIRST_PATH, PATHS, 0)[0].digest() == _expected().digest()


def test_a_table_that_fills_up_is_collected_on_the_way(cupy, monkeypatch):
    collected = []
    collect = path_cuda.Gpu._collect
    monkeypatch.setattr(
        path_cuda.Gpu, "_collect", lambda gpu, builder: (collected.append(1), collect(gpu, builder))
    )
    monkeypatch.setattr(path_cuda, "_SLOTS_A_ROW", 1)
    monkeypatch.setattr(path_cuda, "_SMALLEST_TABLE", 200)
    assert _run("cuda", launch_paths=256)[0].digest() == _expected().digest()
    assert len(collected) > 1


# Faults.


def test_without_a_driver_the_message_says_what_to_do(cupy):
    cupy.driver_fault = "cudaErrorInsufficientDriver: CUDA driver version is insufficient"
    with pytest.raises(DeviceError, match=r"no Nvidia driver .*cudaErrorInsufficientDriver.*device=numpy"):
        hal.open_device(DeviceChoice(name="cuda"))
    assert hal.settle(DeviceChoice(), 1e9).name != "cuda"


def test_without_a_gpu_or_cupy_the_message_says_what_to_do(cupy, monkeypatch):
    cupy.devices = []
    with pytest.raises(DeviceError, match=r"no GPU is visible.*CUDA_VISIBLE_DEVICES"):
        hal.open_device(DeviceChoice(name="cuda"))
    monkeypatch.setattr(cuda_device.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DeviceError, match=r"CuPy is not installed; .*offtake\[cuda13\]"):
        hal.open_device(DeviceChoice(name="cuda"))


def test_without_a_compiler_the_message_names_the_extra(cupy, monkeypatch):
    def missing():
        raise ImportError("libnvrtc.so: cannot open shared object file")

    monkeypatch.setattr(cupy.cuda.nvrtc, "getVersion", missing)
    with pytest.raises(DeviceError, match=r"libnvrtc.*offtake\[cuda13\]"):
        hal.open_device(DeviceChoice(name="cuda"))


def test_a_kernel_that_does_not_compile_shows_the_log(cupy):
    cupy.compile_fault = "offtake.cu(12): error: expected a ;"
    with pytest.raises(DeviceError, match="expected a ;"):
        _run("cuda")


def test_a_gpu_that_fails_is_an_error_and_nothing_else(cupy):
    cupy.launch_fault = "cudaErrorIllegalAddress: an illegal memory access was encountered"
    with pytest.raises(DeviceError, match="cudaErrorIllegalAddress"):
        _run("cuda")


# The cache.


def test_a_kernel_is_compiled_once(cupy):
    for _ in range(2):
        _run("cuda")
    assert cupy.compiled == 1
    _run("cuda", arithmetic="fast")
    assert cupy.compiled == 2


def test_a_damaged_file_of_the_cache_is_compiled_again(cupy):
    expected = _run("cuda")[0].digest()
    (file,) = nvrtc.cache_folder().glob("*.cubin")
    content = bytearray(file.read_bytes())
    content[-10] ^= 1
    file.write_bytes(bytes(content))
    assert _run("cuda")[0].digest() == expected
    assert cupy.compiled == 2


def test_a_folder_that_cannot_be_written_to_is_no_error(cupy, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OFFTAKE_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert _run("cuda")[0].digest() == _expected().digest()


@pytest.mark.parametrize(
    ("wanted", "found"), [(75, 75), (86, 80), (89, 80), (90, 90), (103, 100), (121, 120)]
)
def test_a_newer_gpu_of_a_known_generation_runs_its_code(cupy, wanted: int, found: int):
    assert nvrtc.supported(cupy.cuda.nvrtc, wanted) == found


def test_a_generation_that_the_compiler_does_not_know_is_named(cupy):
    with pytest.raises(DeviceError, match=r"capability 13\.0"):
        nvrtc.supported(cupy.cuda.nvrtc, 130)


def test_a_whole_study_runs_on_it(cupy, tmp_path):
    study = load("anthropic", ["study.paths=1000", "study.keep_paths=5"])
    found = offtake.run(study, device="cuda", out=tmp_path / "run")
    assert found.summary_hash == offtake.run(study, device="numpy").summary_hash
    assert found.manifest["backend"] == "cuda"


def test_auto_says_in_a_line_why_it_passes_over_a_gpu(cupy, caplog):
    cupy.driver_fault = "cudaErrorInsufficientDriver: CUDA driver version is insufficient"
    assert hal.settle(DeviceChoice(), 1.0).name == "numpy"
    assert not caplog.messages
    hal.settle(DeviceChoice(), 1e9)
    (line,) = caplog.messages
    assert line.startswith("device=auto passes over cuda: no Nvidia driver")
    cupy.driver_fault = ""
    assert hal.settle(DeviceChoice(), 1e9).name == "cuda"
