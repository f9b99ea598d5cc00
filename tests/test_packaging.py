"""The wheel and the sdist hold what an installation needs, and `import offtake` stays light."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NEEDED = (
    "offtake/__init__.py",
    "offtake/conf/config.yaml",
    "offtake/conf/portfolio/openai.yaml",
    "offtake/conf/deal/aws.yaml",
    "offtake/conf/press.yaml",
    "offtake/hal/numpy_device.py",
    "offtake_kernels/model/deliver.py",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel straight from the checkout, and an sdist with the wheel made from it."""
    folder = tmp_path_factory.mktemp("dist")
    for target, flags in (("direct", ["--wheel"]), ("through", [])):
        command = [
            sys.executable,
            "-m",
            "build",
            "--no-isolation",
            *flags,
            "--outdir",
            str(folder / target),
            str(ROOT),
        ]
        subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.mark.slow
def test_both_wheels_hold_the_same_files(built):
    direct, through = (
        {
            name
            for name in zipfile.ZipFile(next((built / way).glob("*.whl"))).namelist()
            if "dist-info" not in name
        }
        for way in ("direct", "through")
    )
    assert direct == through
    assert set(NEEDED) <= direct
    assert not [name for name in direct if name.startswith(("tests", "bench", "engine", "kernels"))]


@pytest.mark.slow
def test_the_sdist_can_be_tested(built):
    with tarfile.open(next((built / "through").glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"tests/test_legs.py", "tests/kat/philox4x32_10.txt", "Makefile", "conf/press.yaml"} <= names


@pytest.mark.slow
def test_an_unpacked_wheel_runs_outside_the_checkout(built, tmp_path):
    zipfile.ZipFile(next((built / "direct").glob("*.whl"))).extractall(tmp_path / "site")
    program = (
        "import offtake; study = offtake.load('openai', ['study.paths=64']);"
        "print(offtake.run(study).summary_hash, offtake.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    digest, file = done.stdout.split()
    assert len(digest) == 64
    assert file.startswith(str(tmp_path))


def test_import_offtake_is_light():
    heavy = {"numpy", "scipy", "jax", "pandas", "hydra", "pydantic"}
    program = f"import offtake, sys; print(sorted(set(sys.modules) & {heavy}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_study_is_run_and_saved_without_the_optional_packages(tmp_path):
    packages = {"jax", "cupy", "pandas", "polars", "xarray", "altair", "ray"}
    optional = {*packages, "scipy.stats", "pyarrow.compute"}
    program = (
        "import sys, offtake;"
        f"offtake.run(offtake.load('openai', ['study.paths=16']), out={str(tmp_path)!r});"
        f"print(sorted(set(sys.modules) & {optional}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
