"""The printed kernel, compiled for the host with contraction off: numpy's bits, path by path."""

from __future__ import annotations

import ctypes
import inspect
import re
import shutil
import tempfile
from importlib.resources import files
from pathlib import Path

import fake_cupy
import numpy as np
import pytest
import simple
from studies import random_study

import offtake
from offtake.compile import compile_study
from offtake.portfolio import load
from offtake_kernels import elementary, ops_numpy, path_numpy
from offtake_kernels.graph import LANES, Graph, Value
from offtake_kernels.kernel import Kernel, print_kernel
from offtake_kernels.layout import Plan
from offtake_kernels.model import pay
from offtake_kernels.ops_graph import CallOps, Functions, GraphOps
from offtake_kernels.places import Cell, Numbers, Store
from offtake_kernels.source import C_TYPES, Statements, print_function

EXAMPLE = Path(__file__).parent / "data" / "example.yaml"
FIRST_PATH, PATHS = 2**32 - 100, 200
GENERATED = 200
TOGETHER = 10

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="no g++ to compile the kernel for the host"
)


def host_rows(kernel: Kernel, first_path: int, lanes: int) -> np.ndarray:
    """The rows that the kernel writes, run on the host."""
    module = fake_cupy.Fake().cuda.function.Module()
    module.load(fake_cupy.build(kernel.source, ("-O0", "-DOFFTAKE_THREADS=32", "-DOFFTAKE_SHARED=30000")))
    for name in ("c", "ci", "cw"):
        array = kernel.arrays[name]
        ctypes.memmove(module.get_global_var(name), array.ctypes.data, array.nbytes)
    for number, table in enumerate(kernel.tables):
        pointer = np.array([table.ctypes.data], np.uint64)
        ctypes.memmove(module.get_global_var(f"table{number}"), pointer.ctypes.data, 8)
    rows = np.full((kernel.rows, lanes), np.nan, np.float32)
    given = np.uint64(first_path), np.uint32(lanes), kernel.arrays["quarter_numbers"], rows
    module.get_function("offtake_paths")((-(-lanes // 32), 1, 1), (32, 1, 1), given)
    return rows


def numpy_rows(plan: Plan, kernel: Kernel, first_path: int, lanes: int) -> np.ndarray:
    """The same rows from the numpy backend."""
    found = np.full((kernel.rows, lanes), np.nan, np.float32)
    with np.errstate(all="ignore"):
        recipe = path_numpy.Recipe(plan)
        tile = recipe.tile(first_path, lanes)
        for t in range(plan.quarters):
            arrays = tile.step(t)
            for place, where in zip(kernel.places, recipe.places, strict=True):
                if isinstance(place, int):
                    found[t * kernel.recorded + place] = arrays[where]
                else:
                    assert (np.asarray(arrays[where]) + np.float32(0) == place).all()
        ends = tile.finish()
    for place, series in zip(kernel.finals, plan.path_series, strict=True):
        values = ends[series.scope, series.metric][series.index]
        if isinstance(place, int):
            found[plan.quarters * kernel.recorded + place] = values
        else:
            assert (np.asarray(values) == place).all()
    return found


def assert_same_bits(plan: Plan) -> None:
    kernel = print_kernel(plan)
    printed = host_rows(kernel, FIRST_PATH, PATHS) + np.float32(0)
    expected = numpy_rows(plan, kernel, FIRST_PATH, PATHS) + np.float32(0)
    differ = (printed.view(np.int32) != expected.view(np.int32)) & ~(np.isnan(printed) & np.isnan(expected))
    assert not differ.any(), f"rows {np.flatnonzero(differ.any(axis=1))[:10]} of {kernel.rows} differ"
    assert not (np.isnan(printed) & ~np.isnan(expected)).any()


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", ["openai", "openai_signed", "openai_amazon", "anthropic", str(EXAMPLE)])
def test_the_printed_kernel_has_numpys_bits(name: str):
    assert_same_bits(compile_study(load(name)).plan)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("begin", range(0, GENERATED, TOGETHER))
def test_the_printed_kernel_has_numpys_bits_on_generated_studies(begin: int):
    for seed in range(begin, begin + TOGETHER):
        assert_same_bits(compile_study(offtake.load(random_study(seed))).plan)


def _plan(**deal) -> Plan:
    fee = {"kind": "commitment", "total": 10.0}
    terms = {"slip": {"quantiles": {0.1: 0.0, 0.9: 2.0}}, "pays": {"fee": fee}, **deal}
    revenue = {"initial": 4.0, "volatility": 0.3}
    study = simple.study({"cloud": simple.deal(**terms)}, quarters=5, factors={"revenue": revenue})
    return compile_study(study).plan


def test_portfolios_of_one_shape_have_one_source():
    one, other = (
        print_kernel(_plan()),
        print_kernel(_plan(pays={"fee": {"kind": "commitment", "total": 11.0}})),
    )
    assert one.source == other.source
    assert one.arrays["c"].tobytes() != other.arrays["c"].tobytes()


def test_a_share_of_a_quarter_is_one_call():
    """min(1, max(0, x)), which a GPU saturates; a maximum that others read too stays one."""
    graph = Graph()
    x = graph.input("float", (LANES,))
    held = GraphOps(graph).minimum(GraphOps(graph).maximum(x, 0.0), 1.0)
    numbers, inputs = Numbers(), {x.number: Cell("x")}
    lines = Statements(numbers, inputs, [Store(held, Cell("out"))]).lines()
    assert f"const float v{held.number} = share(x);" in lines
    most = next(value for value in held.args if value.op == "maximum")
    both = [Store(held, Cell("out")), Store(most, Cell("other"))]
    assert "share" not in "".join(Statements(numbers, inputs, both).lines())


def test_what_a_portfolio_lacks_is_not_printed():
    assert "CANCEL" not in print_kernel(_plan()).source
    cancel = {"hazard": 0.1, "notice": 1, "fee": 0.2}
    assert "CANCEL" in print_kernel(_plan(cancel=cancel)).source


def test_nothing_that_a_configuration_says_is_text_of_the_kernel():
    study = load("openai", ["study.reach=[1.37]"])
    source = print_kernel(compile_study(study).plan).source
    for name in (*study.portfolio.deals, "1.37", "1_37"):
        assert not re.search(rf"\b{re.escape(name)}\b", source), name
    functions, path = _decimals(source)
    assert path <= {"0.0f", "0.5f", "1.0f"}, path
    assert functions == _decimals(print_kernel(compile_study(load("anthropic")).plan).source)[0]


def _decimals(source: str) -> list[set[str]]:
    """Those of the functions, and of the path."""
    printed = source[source.index("struct PhiloxResult") :]
    return [set(re.findall(r"\b\d+\.\d+f?\b", part)) for part in printed.split("enum { HISTORY")]


def test_every_stage_has_its_heading():
    source = print_kernel(compile_study(load("openai")).plan).source
    for stage in (
        "draws",
        "terms: deal 0",
        "deliver: deal 0",
        "pool",
        "market",
        "pay: deal 0",
        "buyer",
        "record",
    ):
        assert f"// {stage}\n" in source, stage


def _statements(build, kinds=("float",), rows: int = 1) -> list[str]:
    graph = Graph()
    shape = (rows, LANES) if rows > 1 else (LANES,)
    inputs = [graph.input(kind, shape) for kind in kinds]
    text = "in{0}[{1}]" if rows > 1 else "in{0}"
    cells = {v.number: Cell(text.format(n, "{}"), rows) for n, v in enumerate(inputs)}
    out = "out[{}]" if rows > 1 else "out"
    result: Value = build(GraphOps(graph), *inputs)
    stores = [
        Store(result, Cell(out if len(result.shape) == 2 else "out", rows if len(result.shape) == 2 else 1))
    ]
    return [line.strip() for line in Statements(Numbers(), cells, stores).lines() if line]


def test_a_value_with_one_user_is_written_where_it_is_used():
    lines = _statements(lambda ops, x: ops.maximum(x + 1.0, 0.0) * 0.5)
    name = lines[0].split()[2]
    assert lines == [f"const float {name} = most(in0 + 1.0f, 0.0f) * 0.5f;", f"out = {name};"]


def test_rows_are_a_loop_and_a_single_row_needs_an_array():
    lines = _statements(lambda ops, x: (x * x)[1], rows=3)
    assert "for (int k = 0; k < 3; ++k) {" in lines
    assert any(line.startswith("float v") and line.endswith("[3];") for line in lines)


def test_a_store_waits_for_the_last_reader_of_what_it_replaces():
    graph = Graph()
    old = graph.input("float", (3, LANES))
    new = old + 1.0
    later = new[1] * old[0]
    cells = {old.number: Cell("state[{}]", 3)}
    stores = [Store(new, cells[old.number], old), Store(later, Cell("out"))]
    text = "\n".join(Statements(Numbers(), cells, stores).lines())
    assert text.index("state[k] = ") > text.index("= state[0];")


def _library(source: str, *flags: str) -> ctypes.CDLL:
    """Functions compiled as a kernel is, with kernels that do nothing."""
    kernels = """
void offtake_paths(u64, unsigned, float*, float*) {}
void offtake_tally(float*, unsigned, u64) {}
void offtake_count(float*, unsigned, int*, float*, u64*) {}
void offtake_mark(unsigned*) {}
void offtake_rank(unsigned*, unsigned*, unsigned*) {}
void offtake_collect(unsigned*, unsigned*, unsigned*, unsigned, u64*) {}
"""
    prelude = files("offtake_kernels").joinpath("cuda", "prelude.cuh").read_text()
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        file.write(fake_cupy.build(prelude + source + kernels, ("-O1", *flags)))
        file.flush()
        return ctypes.CDLL(file.name)


@needs_compiler
def test_the_host_compiler_does_not_contract():
    source = 'extern "C" float contracted(float a, float b, float c) { return a * b + c; }'
    contracted = _library(source, "-march=native").contracted
    contracted.restype = ctypes.c_float
    a = 1 + 2**-12
    found = contracted(*(ctypes.c_float(x) for x in (a, a, -1.0)))
    assert found == np.float32(a) * np.float32(a) - np.float32(1)
    assert found != a * a - 1


@needs_compiler
@pytest.mark.parametrize("flags", [(), ("-DOFFTAKE_FAST",)])
def test_what_the_hardware_computes_is_the_same_function(flags: tuple[str, ...]):
    """exp2, log2, the normal and the exponential as printed, fast and strict, against numpy's."""
    functions: Functions = {}
    ops = CallOps(graph := Graph(), functions)
    given = {"float": graph.input("float", (LANES,)), "word": graph.input("word", (LANES,))}
    called = {"exp2": "float", "log2": "float", "normal": "word", "exponential": "word"}
    for name, kind in called.items():
        getattr(elementary, name)(ops, given[kind])
    printed = [line for name in functions for line in print_function(Numbers(), name, functions)]
    ways = (
        f'extern "C" float some_{name}({C_TYPES[kind]} x) {{ return {name}_of(x); }}'
        for name, kind in called.items()
    )
    library = _library("\n".join([*printed, *ways]), *flags)
    edges = [0, 1, 2**31 - 1, 2**31, 2**32 - 1]
    words = np.append(np.random.default_rng(3).integers(0, 2**32, 500, np.uint64), edges).astype(np.uint64)
    floats = np.linspace(0.01, 100, 500, dtype=np.float32)
    for name, kind in called.items():
        function = getattr(library, f"some_{name}")
        function.restype = ctypes.c_float
        inputs = words if kind == "word" else floats
        expected = getattr(elementary, name)(ops_numpy, inputs)
        found = [function((ctypes.c_uint32 if kind == "word" else ctypes.c_float)(x.item())) for x in inputs]
        np.testing.assert_allclose(found, expected, rtol=2e-6 if flags else 0, atol=2e-6 if flags else 0)


@needs_compiler
def test_a_nan_stays_one_in_minimum_and_maximum():
    source = """
extern "C" float smaller(float a, float b) { return least(a, b); }
extern "C" float larger(float a, float b) { return most(a, b); }
"""
    library = _library(source)
    for name, expected in (("smaller", np.minimum), ("larger", np.maximum)):
        function = getattr(library, name)
        function.restype = ctypes.c_float
        for a in (1.0, -2.0, np.inf, np.nan):
            for b in (1.0, 3.0, -np.inf, np.nan):
                found = function(ctypes.c_float(a), ctypes.c_float(b))
                np.testing.assert_equal(found, float(expected(np.float32(a), np.float32(b))))


def standby(ops, leg, numbers, drawn, state, quarter):
    """A rate for each quarter in service, whatever is delivered."""
    return state, {"spend": numbers["per_gw_quarter"] * quarter.delivery["service"]}


def test_a_leg_reaches_the_kernel_without_a_line_for_it(monkeypatch):
    plan = _plan(pays={"space": {"kind": "hosting", "per_gw_year": 2.0}}, term=3)
    before = print_kernel(plan).source
    monkeypatch.setitem(pay._LEGS, "hosting", standby)
    after = print_kernel(plan).source
    added = [line.strip() for line in after.splitlines() if line not in before.splitlines()]
    assert any("g0_service" in line for line in added)
    page = (Path(__file__).parent.parent / "ARCHITECTURE.md").read_text()
    shown = re.search(r"```c\n(.*?)```", page, re.DOTALL)
    assert shown is not None
    assert all(line.strip() in after for line in shown[1].splitlines()), added
    assert inspect.getsource(standby).strip() in page
    if shutil.which("g++"):
        assert_same_bits(plan)


def test_what_a_store_replaces_is_read_before():
    graph = Graph()
    old, other = graph.input("float", (LANES,)), graph.input("float", (LANES,))
    new = other + 1.0
    later = new * old
    cells = {old.number: Cell("state[0]"), other.number: Cell("other")}
    stores = [Store(new, cells[old.number], old), Store(later, Cell("out"))]
    text = "\n".join(Statements(Numbers(), cells, stores).lines())
    assert text.index("= state[0];") < text.index("state[0] = ")
