"""Tables of the README and of docs/bench.md, devices.md and cuda.md from what is in bench/results.

    python docs/tables.py            exit 1 when a page shows other figures than the files
    python docs/tables.py --write    put the files' figures into the pages

A table stands between "<!-- FILE -->" and "<!-- /FILE -->".
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from offtake.benchmark import label
from offtake.terminal_bench import duration_text, kinds, rate_text

ROOT = Path(__file__).resolve().parent.parent
_RATE = "{:,.0f} ({:,.0f} – {:,.0f})"
_RATIO = "{:.2f} ({:.2f} – {:.2f})"
# Ratios that the project asked of itself: device, peer, times.
_ASKED = (
    ("numpy", "naive numpy", 10),
    ("numpy", "squigglepy", 25),
    ("jax fast", "JAX vmap", 30),
    ("jax fast", "squigglepy", 80),
)


def backends(found: dict[str, Any]) -> list[str]:
    """Lines on speed, cores, compiling, memory and the quick study."""
    where = f"{found['processor']}, {found['cores']} cores, load {found['load_average']:.1f} at the start"
    versions = f"Python {found['python']}, numpy {found['numpy']}, JAX {found['jax']}"
    rounds = f"{found['rounds']} rounds of {found['paths']:,} paths in alternation, pinned to one core"
    lines = [f"`{found['command']}`: {where}; {versions}. Median (least – most) of {rounds}.", ""]
    for study, measured in found["alternation"].items():
        lines += [*_rates(study, measured), ""]
    return [*lines, *_cores(found["scaling"]), "", *_memory(found["memory"]), "", *_quick(found)]


def _rates(study: str, measured: dict[str, Any]) -> list[str]:
    lines = [
        f"| {study}, one core | simulation, paths a CPU second | of numpy | with the tally | of numpy |",
        "|---|---|---|---|---|",
    ]
    for name in ("numpy", "jax strict", "jax fast"):
        both = (measured[f"{name}, {kind}"] for kind in ("simulate", "tally"))
        cells = (cell for m in both for cell in (_spread(_RATE, m["rate"]), _spread(_RATIO, m["ratio"])))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _cores(scaling: dict[str, Any]) -> list[str]:
    rates = " | ".join(_spread(_RATE, scaling[number]) for number in ("one", "two"))
    compiling = " | ".join(f"{scaling[f'compile_seconds_{n}']:.1f}" for n in ("one_core", "two_cores"))
    return [
        "| OpenAI, jax strict, with the tally | a worker on one core | two workers on two | ratio |",
        "|---|---|---|---|",
        f"| paths a second | {rates} | {_spread(_RATIO, scaling['ratio'])} |",
        f"| seconds to compile | {compiling} | |",
    ]


def _memory(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["| OpenAI, jax strict, one process | peak memory, MiB | seconds in all |", "|---|---|---|"]
    for row in rows:
        cells = ("not run", "") if row["peak_mib"] is None else (f"{row['peak_mib']:,.0f}", row["seconds"])
        lines.append(f"| {row['paths']:,} paths | {cells[0]} | {cells[1]} |")
    return lines


def _quick(found: dict[str, Any]) -> list[str]:
    lines = ["| `offtake run study=quick` | seconds | CPU seconds |", "|---|---|---|"]
    for name, seconds in found["quick_study_seconds"].items():
        wall, cpu = (_spread("{:.1f} ({:.1f} – {:.1f})", seconds[kind]) for kind in ("wall", "cpu"))
        lines.append(f"| {name} | {wall} | {cpu} |")
    return lines


def fast(found: dict[str, Any]) -> list[str]:
    """Lines on how far `fast` strays from `strict`."""
    studies = found["studies"]
    rows = {
        "paths": lambda drift: f"{drift['paths']:,}",
        "paths with a value of other bits": lambda drift: f"{drift['paths_that_differ']:.2%}",
        "values of other bits": lambda drift: f"{drift['values_that_differ']:.1%}",
        "values more than a millionth apart": lambda drift: f"{drift['share_above_1e_6']:.2%}",
        "largest relative difference of a value": lambda drift: f"{drift['largest_relative']:.2g}",
        "worst quantile, relative": lambda drift: f"{drift['worst_quantile_relative']:.1g}",
        "worst quantile, of its standard error": lambda drift: f"{drift['worst_quantile_se']:.2g}",
    }
    lines = [
        f"`{found['command']}`: {found['processor']}, JAX {found['jax']}.",
        "",
        f"| fast against strict | {' | '.join(studies)} |",
        "|---|" + "---|" * len(studies),
    ]
    for heading, cell in rows.items():
        lines.append(f"| {heading} | {' | '.join(cell(drift) for drift in studies.values())} |")
    return lines


def gpu(found: dict[str, Any]) -> list[str]:
    """Lines on parity, speed, the long run and the sanitizer of a GPU."""
    device, versions = found["device"], found["device"]["versions"]
    stack = f"CUDA driver {versions['cuda_driver']}, NVRTC {versions['nvrtc']}, CuPy {versions['cupy']}"
    same = sum(row["strict_is_numpys"] for row in found["parity"])
    long_run = found["long_run"]
    sanitizer = {key.removeprefix("sanitizer_"): word for key, word in found.items() if "sanitizer" in key}
    return [
        f"`bench/gpu_check.sh`: {device['kind']}, {device['cores']} multiprocessors, {stack}.",
        "",
        f"- strict has numpy's bits, paths and tally, on {same} of {len(found['parity'])} studies of "
        f"{found['parity'][0]['paths']:,} paths, at four launch sizes.",
        f"- {long_run['portfolio']}, {long_run['paths']:.0e} paths, strict, statistics and all: "
        f"{long_run['seconds']:.1f} s.",
        f"- compute-sanitizer: {', '.join(f'{tool} {word}' for tool, word in sanitizer.items())}.",
        "",
        "| study | arithmetic | paths alone | of issue slots | with their tally | with sums on the host |",
        "|---|---|---|---|---|---|",
        *(_gpu_row(row) for row in found["throughput"]),
        "",
        "Million paths a second. Issue slots: instructions by count (bench/results/kernel.md) against what "
        f"the GPU could start. Last column: {found['throughput'][0]['whole']['paths']:,} paths.",
    ]


def _gpu_row(row: dict[str, Any]) -> str:
    share = "" if row["share_of_issue_bound"] is None else f"{row['share_of_issue_bound']:.0%}"
    alone = row["launch_paths"] / row["paths_ms"] / 1e3
    rates = row["paths_per_second"] / 1e6, row["whole"]["paths_per_second"] / 1e6
    tallied = " | ".join(f"{rate:.1f}" for rate in rates)
    return f"| {row['portfolio']} | {row['arithmetic']} | {alone:.1f} | {share} | {tallied} |"


def bench(found: dict[str, Any]) -> list[str]:
    """Lines on every device of one machine."""
    study, path = found["study"], found["study"]["path"]
    where = "; ".join(f"{', '.join(names)} on {kind}" for kind, names in kinds(found).items())
    lines = [
        f"{study['portfolio']}, {study['deals']} deals x {study['quarters']} quarters; a path is "
        f"{path['operations']:,} operations, {path['words']:,} random words and {path['bytes'] / 1e3:.1f} "
        f"kB; {where}.",
        "",
        "| device | paths/s (least – most) | deal-quarters/s | ns/path | of limit | compile | J/1e6 paths "
        "| 1e9 paths |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found["devices"]:
        rate, joules = one["paths_per_second"], one["joules_per_million_paths"]
        cells = (
            label(one["backend"], one["arithmetic"]),
            "{} ({} – {})".format(*(rate_text(rate[key]) for key in ("median", "least", "most"))),
            f"{one['deal_quarters_per_second']:.2e}",
            f"{1e9 / rate['median']:,.0f}",
            f"{one['share_of_limit']:.0%}",
            f"{one['compile_seconds']:.1f} s",
            f"{joules:.1f}" if joules else "",
            duration_text(1e9 / rate["median"]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def scaling(found: dict[str, Any]) -> list[str]:
    """Lines on how cost grows, on memory and on starting."""
    lines = [
        f"`{found['command']}`: {found['processor']}, load {found['load_average']:.1f} at the end; Python "
        f"{found['python']}, numpy {found['numpy']}.",
        "",
        "| CPU seconds by | sizes | seconds (median) | exponent |",
        "|---|---|---|---|",
    ]
    for dimension, one in found["growth"].items():
        sizes = ", ".join(f"{size:,}" for size in one["sizes"])
        seconds = ", ".join(f"{each['median']:.2f}" for each in one["seconds"])
        lines.append(f"| {dimension} | {sizes} | {seconds} | {one['exponent']:.2f} |")
    lines += ["", "| paths | peak memory, MiB | seconds |", "|---|---|---|"]
    for row in found["memory"]:
        lines.append(f"| {row['paths']:,} | {row['peak_mib']:,.0f} | {row['seconds']} |")
    lines += ["", "| worker processes | seconds | of one |", "|---|---|---|"]
    first = found["workers"][0]["seconds"]
    for row in found["workers"]:
        lines.append(f"| {row['workers']} | {row['seconds']:.1f} | {first / row['seconds']:.2f} |")
    imported = _spread("{:.3f} ({:.3f} – {:.3f})", found["import_seconds"]["offtake"])
    quick = _spread("{:.1f} ({:.1f} – {:.1f})", found["quick_study_seconds"]["wall"])
    return [*lines, "", f"`import offtake`: {imported} s. `offtake run study=quick`: {quick} s."]


def peers(found: dict[str, Any]) -> list[str]:
    """Lines on offtake beside other libraries, with the figures that were asked for."""
    versions = {"Python": found["python"], **found["versions"]}
    libraries = ", ".join(f"{name} {version}" for name, version in versions.items())
    load = f"load {found['load_average']:.1f} at the start"
    worst = max(found["agreement"].values(), key=lambda one: one["worst"])
    return [
        f"`{found['command']}`: {found['processor']}, one core, {load}; {libraries}. "
        f"Median (least – most) of {found['rounds']} rounds. Before them, against {found['checked_paths']:,} "
        f"paths of offtake, the largest of all differences is {worst['worst']:.1f} standard errors "
        f"({worst['of']}).",
        "",
        *_ours(found["offtake"]),
        "",
        *_theirs(found["peers"]),
        "",
        "With capacity, compute and spend of every deal too, 40 series a quarter instead of 4:",
        "",
        *_theirs(found["peers_by_deal"]),
        "",
        *_asked(found["peers"], found["peers_by_deal"]),
    ]


def _ours(measured: dict[str, dict[str, Any]]) -> list[str]:
    lines = [
        "| offtake | paths a CPU second, with the tally | with the statistics | compile |",
        "|---|---|---|---|",
    ]
    for name, one in measured.items():
        rates = " | ".join(_spread(_RATE, one[kind]) for kind in ("tally", "statistics"))
        lines.append(f"| {name} | {rates} | {one['compile_seconds']:.1f} s |")
    return lines


def _theirs(measured: dict[str, dict[str, Any]]) -> list[str]:
    devices = list(next(iter(measured.values()))["times"])
    of_offtake = " | ".join(f"{name} ÷ peer" for name in devices)
    lines = [
        f"| peer | paths a call | paths a CPU second | prepare | {of_offtake} |",
        "|---|---|---|---|" + "---|" * len(devices),
    ]
    for name, peer in measured.items():
        cells = f"{peer['paths']:,} | {_spread(_RATE, peer['rate'])} | {peer['prepare_seconds']:.1f} s"
        times = " | ".join(_spread(_RATIO, peer["times"][device]) for device in devices)
        lines.append(f"| {name} | {cells} | {times} |")
    return lines


def _asked(measured: dict[str, dict[str, Any]], by_deal: dict[str, dict[str, Any]]) -> list[str]:
    lines = ["| asked for | measured | by deal | |", "|---|---|---|---|"]
    for device, peer, asked in _ASKED:
        times = [found[peer]["times"][device] for found in (measured, by_deal) if peer in found]
        reached = "reached" if any(one["median"] >= asked for one in times) else "not reached"
        cells = [*(_spread(_RATIO, one) for one in times), ""][:2]
        lines.append(f"| {device} ≥ {asked} × {peer} | {' | '.join(cells)} | {reached} |")
    return lines


PAGES = {
    "docs/bench.md": {"bench/results/scaling.json": scaling, "bench/results/peers.json": peers},
    "README.md": {"bench/results/bench.json": bench, "bench/results/bench_h100.json": bench},
    "docs/devices.md": {"bench/results/backends.json": backends, "bench/results/fast.json": fast},
    "docs/cuda.md": {"bench/results/gpu_check.json": gpu},
}


def renewed(text: str, page: str) -> str:
    """A page's text with the tables that the files yield."""
    for name, lines_of in PAGES[page].items():
        lines = lines_of(json.loads((ROOT / name).read_text(encoding="utf-8")))
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        assert end, f"{name} has no place in {page}"
        text = "".join([before, begin, *(f"{line}\n" for line in lines), end, after])
    return text


def _spread(form: str, spread: dict[str, float]) -> str:
    return form.format(spread["median"], spread["least"], spread["most"])


def main() -> int:
    """Checks or writes the pages."""
    unlike = 0
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        new = renewed(text, page)
        unlike |= new != text
        if "--write" in sys.argv:
            (ROOT / page).write_text(new, encoding="utf-8")
    return 0 if "--write" in sys.argv else unlike


if __name__ == "__main__":
    sys.exit(main())
