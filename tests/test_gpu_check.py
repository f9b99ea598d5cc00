"""The script for the day a GPU is there, on the CuPy of the host."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import fake_cupy
import gpu_check
import pytest

from offtake_kernels import path_cuda

ROOT = Path(__file__).parent.parent
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="no g++ to compile the kernel for the host"
)


@pytest.fixture
def report(monkeypatch, tmp_path) -> Path:
    fake_cupy.install(monkeypatch, tmp_path / "cache")
    monkeypatch.setattr(gpu_check, "THREADS", (64,))
    monkeypatch.setattr(gpu_check, "LAUNCHES", (256,))
    monkeypatch.setattr(path_cuda, "_MOST_PATHS", 256)
    file = tmp_path / "report.json"
    small = [
        "--paths",
        "300",
        "--paths-of-parity",
        "300",
        "--rounds",
        "1",
        "--paths-of-speed",
        "300",
        "--portfolio",
        "anthropic",
    ]
    assert gpu_check.main(["--json", str(file), *small]) == 0
    return file


@needs_compiler
@pytest.mark.slow
def test_the_report_holds_parity_throughput_and_a_long_run(report: Path):
    found = json.loads(report.read_text())
    assert found["device"]["kind"] == "Fake"
    assert [row["strict_is_numpys"] for row in found["parity"]] == [True]
    assert all(0 <= row["fast_strays"] < gpu_check.FAR for row in found["parity"])
    assert {row["arithmetic"] for row in found["throughput"]} == {"strict", "fast"}
    assert all(row["paths_per_second"] > 0 < row["share_of_issue_bound"] for row in found["throughput"])
    assert found["long_run"]["paths"] == 300
    assert gpu_check.main(["--json", str(report), "--verdict"]) == 0
    gpu_check.main(["--json", str(report), "--note", "sanitizer_memcheck", "failed"])
    assert gpu_check.main(["--json", str(report), "--verdict"]) == 1
    found["parity"][0]["strict_is_numpys"] = False
    report.write_text(json.dumps(found))
    assert gpu_check.main(["--json", str(report), "--verdict"]) == 1


def test_without_a_gpu_the_script_ends_with_the_reason(tmp_path):
    environment = os.environ | {
        "PYTHON": sys.executable,
        "CUDA_VISIBLE_DEVICES": "",
        "OFFTAKE_TRACEBACK": "0",
    }
    environment["PYTHONPATH"] = os.pathsep.join(
        str(ROOT / folder) for folder in ("engine", "kernels", "bench")
    )
    script = [str(ROOT / "bench" / "gpu_check.sh"), str(tmp_path / "report.json")]
    found = subprocess.run(script, capture_output=True, text=True, env=environment)
    assert found.returncode == 3
    assert found.stderr.startswith("device=cuda: ")
    assert not (tmp_path / "report.json").exists()
