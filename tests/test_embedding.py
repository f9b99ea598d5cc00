"""Loading changes nothing global: it works in threads and inside another Hydra application."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra import version as hydra_version
from hydra.core.global_hydra import GlobalHydra
from omegaconf.basecontainer import BaseContainer

from offtake.composing import _hydra_rules
from offtake.portfolio import load

ROOT = Path(__file__).parent.parent
EXAMPLE = Path(__file__).parent / "data" / "example.yaml"
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "engine"), str(ROOT / "kernels")])}


def _registered() -> set[str]:
    """Names of OmegaConf's resolvers."""
    return set(BaseContainer._resolvers)


def test_threads_load_different_studies_at_once():
    def one(number: int) -> tuple[int, float]:
        source = "demo" if number % 2 else EXAMPLE
        groups = ["world=demo"] if number % 2 else []
        study = load(source, [*groups, f"study.seed={number}", f"portfolio.buyer.cash={number}"])
        return study.study.seed, study.portfolio.buyer.cash

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(one, range(96))) == [(number, float(number)) for number in range(96)]


def test_nothing_global_is_changed():
    instance, initialised = GlobalHydra.instance(), GlobalHydra.instance().is_initialized()
    before, base, folder = _registered(), hydra_version.getbase(), os.getcwd()
    environment = dict(os.environ)
    load("demo", ["world=demo", "device=null"])
    assert GlobalHydra.instance() is instance
    assert GlobalHydra.instance().is_initialized() is initialised
    assert _registered() == before
    assert hydra_version.getbase() is base
    assert (os.getcwd(), dict(os.environ)) == (folder, environment)


def test_what_another_thread_sets_meanwhile_stays():
    before = hydra_version.getbase()
    try:
        with _hydra_rules():
            hydra_version.setbase("1.2")
            theirs = hydra_version.getbase()
        assert hydra_version.getbase() is theirs
    finally:
        hydra_version.VersionBase.instance().version_base = before


def test_inside_a_hosts_own_initialised_hydra(tmp_path):
    (tmp_path / "host.yaml").write_text("answer: 42\n")
    with initialize_config_dir(version_base="1.3", config_dir=str(tmp_path)):
        first = compose("host")
        assert load("demo", ["world=demo"]).portfolio.name == "demo"
        assert GlobalHydra.instance().is_initialized()
        assert compose("host") == first


def test_inside_a_hosts_hydra_main(tmp_path):
    (tmp_path / "host.yaml").write_text("answer: 42\nhydra: {run: {dir: .}, output_subdir: null}\n")
    (tmp_path / "app.py").write_text(
        "import hydra\n"
        "from hydra.core.hydra_config import HydraConfig\n"
        "@hydra.main(version_base='1.3', config_path='.', config_name='host')\n"
        "def main(cfg):\n"
        "    from offtake.portfolio import load\n"
        "    name = load('demo', ['world=demo']).portfolio.name\n"
        "    print(cfg.answer, name, HydraConfig.get().job.config_name)\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "app.py", "answer=43"],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "43 demo host\n"), done.stderr


def test_types_and_dispatcher_do_not_import_hydra_or_each_other():
    """The version, the help and a wrong command need neither pydantic nor Hydra."""
    code = (
        "import sys; from offtake.cli import main; main(['--version']); main(['nonsense']);"
        "heavy = {'hydra', 'omegaconf', 'pydantic', 'numpy', 'yaml', 'rich'} & set(sys.modules);"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
