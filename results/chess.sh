#!/usr/bin/env bash
# The tables of results/chess.md: naive by gap, bootstrapping, easy to hard; puzzles, seeds 0 to 2.
#
#     results/chess.sh      # all of it, two seeds side by side, one thread each
#
# OUT (runs/chess/table), DS (puzzles). What is done already is not done again.
set -eu
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 ds=${DS:-puzzles}
export out=${OUT:-runs/chess/table} python=${PYTHON:-.venv/bin/python}
mkdir -p "$out"

seed() { # all runs of a seed; a student is called after its supervisor and itself
    local s=$1 o=$out/seed$1
    weak() { $python train_weak.py --ds="$ds" --seed="$s" "$@"; }
    strong() { $python train_strong.py "$@" --seed="$s"; }
    for size in xs s; do
        weak --model=chess/$size --out="$o/weak_$size"
        $python label.py "$o/weak_$size" --out="$o/labels_$size.jsonl"
    done
    for pair in xs_s xs_m s_m; do
        strong "$o/labels_${pair%_*}.jsonl" --model=chess/${pair#*_} --out="$o/$pair"
    done
    truth() { strong "$o/labels_xs.jsonl" --target=truth "$@"; }
    for size in s m; do truth --model=chess/$size --out="$o/ceiling_$size"; done
    $python label.py "$o/weak_xs" --part=1/2 --out="$o/labels_1.jsonl"
    strong "$o/labels_1.jsonl" --model=chess/s --out="$o/chain_s"
    $python label.py "$o/chain_s" --part=2/2 --out="$o/labels_2.jsonl"
    strong "$o/labels_2.jsonl" --model=chess/m --out="$o/chain_m"
    for easy in 20 100; do truth --easy=$easy --model=chess/m --out="$o/easy_$easy"; done
    $python eval.py "$o"/*_*/
}
export -f seed
printf '%s\n' 0 1 2 | xargs -P 2 -I{} bash -c 'seed {} > $out/seed{}.txt 2>&1'
for size in xs s m; do
    $python eval.py --model=chess/$size --ds="$ds" --out="$out/zero_$size"
done

compare() { # PGR of a student: its supervisor's size, its name, its ceiling's size
    echo "== $2"
    $python pgr.py "$out/seed*/weak_$1" "$out/seed*/$2" "$out/seed*/ceiling_$3" --out="$out/$2.json"
}
for pair in xs_s xs_m s_m; do compare "${pair%_*}" "$pair" "${pair#*_}"; done
compare xs chain_m m
for easy in 20 100; do compare xs easy_$easy m; done
