#!/usr/bin/env bash
# What a GPU computes and how fast: the tables of results/gpu.md. Needs nothing from outside, each part three minutes at most.
#
#     results/gpu.sh check          # packed against padded, one training cut in many ways, the settings end to end
#     results/gpu.sh bench          # our loop beside Hugging Face's Trainer, Qwen2 shapes of 0.5B and 1.5B
#     results/gpu.sh large          # a 7B shape: low-rank terms, and full fine-tuning where the memory is there
#
# Tables go to runs/gpu (OUT=...) as well. PYTHON=... picks an interpreter; options are those of results/gpu.py.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
[ -x "$(command -v "$python")" ] || python=python3
exec "$python" results/gpu.py "$@"
