#!/usr/bin/env bash
# What a GPU computes and how fast: the tables of results/gpu.md. All parts but
# `real` need nothing from outside. Each takes three minutes at most; several may be given at once.
#
#     results/gpu.sh check          # packed against padded, one training in many ways, waiting
#     results/gpu.sh demo           # a grid of each setting: the PGR of a CPU?
#     results/gpu.sh real           # SST-2 with minilm, smollm2-135m, gemma3-270m, folders beside
#                                   # the scripts, made by the transformers of requirements.txt,
#                                   # and W2S_MIRROR (see real.md); three seeds
#     results/gpu.sh bench          # our loop beside Hugging Face's Trainer and, where it is installed,
#                                   # TRL's; a shape of 1.5B, and (small) of 0.5B
#     results/gpu.sh large          # a 7B shape: low-rank terms, all weights
#
# Tables go to runs/gpu (--out=...) as well. PYTHON=... picks an interpreter.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
export PYTORCH_ALLOC_CONF=${PYTORCH_ALLOC_CONF:-expandable_segments:True} # as the stages do
[ -x "$(command -v "$python")" ] || python=python3
exec "$python" tests/gpu.py "$@"
