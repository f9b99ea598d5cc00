#!/usr/bin/env bash
# For a machine with an Nvidia GPU: does the CUDA backend give numpy's bits, and how fast is it?
#
#   bench/gpu_check.sh [REPORT.json]     about ten minutes; PYTHON=.venv/bin/python chooses the environment
#
# Writes one JSON report: the device, parity, throughput by launch and block size, what the device could do by
# instruction count, a run of 1e9 paths, and compute-sanitizer's verdict where it is installed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
report=${1:-gpu_check.json}
paths=${PATHS:-1e9}

"$python" "$here/gpu_check.py" --json "$report" --paths "$paths"

if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck initcheck; do
    echo "compute-sanitizer: $tool"
    if compute-sanitizer --tool "$tool" --error-exitcode 9 "$python" "$here/gpu_check.py" --only-parity anthropic \
        --paths-of-parity 1500; then verdict=clean; else verdict=failed; fi
    "$python" "$here/gpu_check.py" --json "$report" --note "sanitizer_$tool" "$verdict"
  done
else
  echo "compute-sanitizer is not here: not run"
  "$python" "$here/gpu_check.py" --json "$report" --note sanitizer "not installed"
fi
"$python" "$here/gpu_check.py" --json "$report" --verdict
