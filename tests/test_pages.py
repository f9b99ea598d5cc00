"""What the pages show is what happens: commands and outputs, studies, Python snippets, links."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))

import console  # noqa: E402
import outcomes  # noqa: E402
import tables  # noqa: E402

import offtake  # noqa: E402

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "bench").glob("*.md")])
STUDIES = re.compile(r"^```yaml study[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SNIPPETS = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINKS = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def _named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if "```console" in p.read_text()], ids=_named)
def test_every_command_prints_what_is_shown(page, tmp_path):
    assert console.check(page) == []


@pytest.mark.parametrize("page", [p for p in PAGES if STUDIES.search(p.read_text())], ids=_named)
def test_every_study_shown_is_valid(page):
    for text in STUDIES.findall(page.read_text()):
        study = offtake.load(yaml.safe_load(text), ["study.paths=16"])
        assert offtake.run(study).manifest["status"] == "complete"


def test_the_readme_s_python_runs(tmp_path):
    for snippet in SNIPPETS.findall((ROOT / "README.md").read_text()):
        done = subprocess.run(
            [sys.executable, "-c", snippet], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        assert "of paths have less than" in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_links_lead_somewhere(page):
    for target in LINKS.findall(page.read_text()):
        assert (page.parent / target).exists(), target


def test_make_run_runs_what_the_readme_shows():
    done = subprocess.run(["make", "-n", "run"], cwd=ROOT, capture_output=True, text=True, check=True)
    shown = "offtake run portfolio=openai study.paths=1e5 executor.workers=2"
    assert shown in done.stdout
    assert f"$ {shown}" in (ROOT / "README.md").read_text()


def test_masks_and_left_out_lines():
    assert console.agrees(["a in 2.5 s", "…", "z"], ["a in 13.1 s", "b", "c", "z"])
    assert console.agrees(["…"], [])
    assert not console.agrees(["a", "…"], ["b"])
    assert not console.agrees(["12 paths"], ["13 paths"])


def test_tables_are_those_of_the_results():
    for page in tables.PAGES:
        text = (tables.ROOT / page).read_text(encoding="utf-8")
        assert tables.renewed(text, page) == text
        for name in tables.PAGES[page]:
            place = f"<!-- {name} -->\n"
            assert tables.renewed(text.replace(place, f"{place}| another figure |\n"), page) == text


@pytest.mark.slow
def test_outcomes_are_those_of_the_runs():
    text = outcomes.PAGE.read_text(encoding="utf-8")
    place = "<!-- worlds -->\n"
    assert outcomes.renewed(text.replace(place, f"{place}| another figure |\n")) == text
