#!/usr/bin/env bash
# The tables of results/rules.md: every rule, error structures, imitation, ensembles, probes,
# prompts; facts, seeds 0 to 2.
#
#     results/rules.sh             # all of it; or a part: results/rules.sh rules
#                                  # (errors, ensembles, features, probes, analysis)
#
# Two processes side by side, one thread each. What is done already is not done again
# (OUT=runs/rules; its log: log.txt).
set -eu
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
python=${PYTHON:-.venv/bin/python}
out=${OUT:-runs/rules}
mkdir -p $out
rules="xent conf conf.75 logconf product window entropy reverse_xent reverse_kl mix adaptive"

side() { # commands from stdin, two at a time; a line may be several, with &&
    sed "s#\(^\|&& \)#&$python #g" | xargs -P 2 -I{} bash -c "{ {} ; } >> $out/log.txt"
}

row() { # a line of a table: its name, then supervisor, student and ceiling as pgr.py takes them
    name=$1 && shift
    $python pgr.py "$@" --out="$out/pgr/${2##*/}.json" | tee -a $out/log.txt | awk -v name="$name" '
        function told(k) { return $k " [" $(k + 1) ", " $(k + 3) "]" }
        /^weak /              { weak = told(2) }
        /^student  /          { student = told(2) }
        /^ceiling /           { ceiling = told(2) }
        /^PGR /               { pgr = $2 == "undefined:" ? "undefined" : told(2) }
        /where it is wrong /  { wrong = told(5) }
        END { print "| " name " | " weak " | " student " | " ceiling " | " pgr " | " wrong " |" }'
}

head() {
    printf '\n### %s\n\n| | weak | student | ceiling | PGR | agreement where weak is wrong |\n' "$1"
    echo '|---|---|---|---|---|---|'
}

options() { # the options of a rule of the list above
    case $1 in conf.75) echo "--loss=conf --alpha=0.75" ;; *) echo "--loss=$1" ;; esac
}

# prefixes (columns), a name, other names (lines): by how many points of accuracy the others beat
# the one, paired
gains() {
    $python - $out "$1" "$2" $3 <<'PYTHON'
import sys

import numpy as np

from w2s import effects, files

out, prefixes, one, *others = sys.argv[1:]


def right(run):
    """[3 seeds, N test rows]: 1 where the run is right"""
    names = [f"{out}/{s}/{run}/eval/facts-test.jsonl" for s in range(3)]
    seeds = [files.read_jsonl(name, ["prob", "label"]) for name in names]
    return np.array([[(r["prob"] > 0.5) == r["label"] for r in seed] for seed in seeds]) * 1.0


groups = files.read_card(f"{out}/0/xs/eval/facts-test.jsonl")["test_groups"]
for other in others:
    line = f"| {other} |"
    for prefix in prefixes.split(","):
        gain = 100 * (right(prefix + other) - right(prefix + one))
        found = effects.crossed(gain[None], *effects.number(groups))
        line += " {:+.1f} [{:+.1f}, {:+.1f}] |".format(*effects.interval(found, [1]))
    print(line)
PYTHON
}

base() { # supervisors, labels, ceilings
    for s in 0 1 2; do for w in xs s; do
        echo "train_weak.py --model=facts/$w --seed=$s --out=$out/$s/$w" \
            "&& label.py $out/$s/$w --out=$out/$s/$w.jsonl"
    done; done | side
    for s in 0 1 2; do for m in s m; do
        echo "train_strong.py $out/$s/xs.jsonl --model=facts/$m --seed=$s" \
            "--target=truth --out=$out/$s/ceiling-$m"
    done; done | side
    $python eval.py "$out/?/xs" "$out/?/s" "$out/?/ceiling-?" >> $out/log.txt
}

rules() {
    for s in 0 1 2; do for pair in "xs s" "xs m" "s m"; do for rule in $rules; do
        set -- $pair
        echo "train_strong.py $out/$s/$1.jsonl --model=facts/$2 --seed=$s" \
            "$(options $rule) --out=$out/$s/$1-$2-$rule"
    done; done; done | side
    $python eval.py "$out/?/*-*-*" >> $out/log.txt
    for pair in "xs m" "s m" "xs s"; do
        set -- $pair
        head "$1 -> $2"
        for rule in $rules; do row $rule "$out/*/$1" "$out/*/$1-$2-$rule" "$out/*/ceiling-$2"; done
    done
}

errors() {
    for s in 0 1 2; do
        for kind in own random longest shortest unconfident confident coin; do
            echo "controls.py $out/$s/xs.jsonl --kind=$kind --run=$out/$s/ceiling-m --seed=$s" \
                "--out=$out/$s/e-$kind.jsonl" \
                "&& train_strong.py $out/$s/e-$kind.jsonl --seed=$s --out=$out/$s/e-$kind"
        done
        echo "label.py $out/$s/xs --test_rows --out=$out/$s/test.jsonl" \
            "&& controls.py $out/$s/test.jsonl --kind=suffix --out=$out/$s/said/facts.jsonl" \
            "&& controls.py $out/$s/xs.jsonl --kind=suffix --out=$out/$s/said.jsonl"
    done | side
    # the test rows with the suffix are called facts too, so that pgr.py finds them
    for s in 0 1 2; do for rule in xent conf; do
        echo "train_strong.py $out/$s/said.jsonl --seed=$s --loss=$rule --out=$out/$s/said-$rule" \
            "&& eval.py $out/$s/said-$rule --ds=$out/$s/said/facts.jsonl"
    done; done | side
    $python eval.py "$out/?/e-*" >> $out/log.txt
    head "E.2: where the errors are, at equal weak accuracy; xs -> m, xent"
    for kind in own random longest shortest unconfident confident coin; do
        row $kind "$out/*/xs" "$out/*/e-$kind" "$out/*/ceiling-m"
    done
    head "E.3: the supervisor's opinion in every text; xs -> m"
    for rule in xent conf; do
        row $rule "$out/*/xs" "$out/*/said-$rule" "$out/*/ceiling-m" --other_texts
    done
}

ensembles() {
    for s in 0 1 2; do
        for k in 0 1 2 3 4; do
            echo "train_weak.py --bootstrap --seed=$s$k --out=$out/$s/bag$k"
        done
    done | side
    for s in 0 1 2; do
        echo "label.py $out/$s/bag0 --out=$out/$s/one_bag.jsonl"
        echo "label.py $out/$s/bag? --out=$out/$s/soft.jsonl"
        echo "label.py $out/$s/bag? --vote=hard --out=$out/$s/hard.jsonl"
        echo "label.py $out/$s/bag? --weights --out=$out/$s/weights.jsonl"
        echo "label.py $out/$s/bag? --select=agreement --out=$out/$s/agreement.jsonl"
        echo "label.py $out/$s/xs --keep=0.8 --out=$out/$s/keep.jsonl"
        echo "label.py $out/$s/xs-m-xent --out=$out/$s/relabelled.jsonl"
        echo "label.py $out/$s/xs-s-xent --out=$out/$s/chain.jsonl"
    done | side
    kinds="one_bag soft hard weights agreement keep relabelled chain"
    for s in 0 1 2; do for kind in $kinds; do
        echo "train_strong.py $out/$s/$kind.jsonl --seed=$s --out=$out/$s/v-$kind"
    done; done | side
    $python eval.py "$out/?/v-*" >> $out/log.txt
    head "Ensembles, filters, chains; xs -> m, xent; weak is one supervisor on all rows"
    row one "$out/*/xs" "$out/*/xs-m-xent" "$out/*/ceiling-m"
    for kind in $kinds; do row $kind "$out/*/xs" "$out/*/v-$kind" "$out/*/ceiling-m"; done
    printf '\n| labels of the strong half | rows | right |\n|---|---|---|\n'
    $python - $out xs $kinds <<'PYTHON'
import sys

import numpy as np

from w2s import effects, files

out, *kinds = sys.argv[1:]
for kind in kinds:
    seeds = [files.read_jsonl(f"{out}/{s}/{kind}.jsonl", ["label", "weak"]) for s in range(3)]
    group = {row["id"]: row["group"] for seed in seeds for row in seed}
    found = [{row["id"]: (row["weak"] > 0.5) == row["label"] for row in seed} for seed in seeds]
    ids = sorted(group)
    kept = np.array([[i in seed for i in ids] for seed in found], dtype=float)
    right = np.array([[seed.get(i, False) for i in ids] for seed in found], dtype=float)
    both = effects.crossed([right, kept], *effects.number([group[i] for i in ids]))
    value, low, high = effects.fieller(both, [1, 0], [0, 1])
    print(f"| {kind} | {kept.sum() / 3:.0f} | {value:.3f} [{low:.3f}, {high:.3f}] |")
PYTHON
}

features() { # E.1; the supervisor is no run, so its answers to the test rows are labels too
    for s in 0 1 2; do
        echo "label.py $out/$s/xs --test_rows --out=$out/$s/test.jsonl"
    done | side
    for s in 0 1 2; do for d in 1 2 4 8 16 32; do
        echo "controls.py $out/$s/xs.jsonl --kind=features --dims=$d --seed=$s" \
            "--out=$out/$s/f$d.jsonl" \
            "&& controls.py $out/$s/test.jsonl --kind=features --dims=$d --seed=$s" \
            "--out=$out/$s/test-f$d.jsonl" \
            "&& train_strong.py $out/$s/f$d.jsonl --seed=$s --out=$out/$s/f$d"
    done; done | side
    $python eval.py "$out/?/f*" >> $out/log.txt
    printf '\n### E.1: logistic regression on the first dimensions of m; m learns from it\n\n'
    printf '| dimensions | weak | student | ceiling | PGR |\n|---|---|---|---|---|\n'
    $python - $out 1 2 4 8 16 32 <<'PYTHON'
import sys

import numpy as np

from w2s import files, stats

out, *dims = sys.argv[1:]
first = files.read_jsonl(f"{out}/0/ceiling-m/eval/facts-test.jsonl", ["prob", "label"])
groups = files.read_card(f"{out}/0/ceiling-m/eval/facts-test.jsonl")["test_groups"]


def answers(name, field):
    """[3 seeds, N test rows]: P(label = 1)"""
    seeds = [files.read_jsonl(f"{out}/{s}/{name}.jsonl", [field]) for s in range(3)]
    found = [{row["id"]: row[field] for row in seed} for seed in seeds]
    return [[seed[row["id"]] for row in first] for seed in found]


def told(one):
    if one["value"] is None:
        return "undefined"
    return "{value:.2f} [{low:.2f}, {high:.2f}]".format(**one)


for d in dims:
    runs = answers(f"test-f{d}", "weak"), answers(f"f{d}/eval/facts-test", "prob")
    said = np.array([*runs, answers("ceiling-m/eval/facts-test", "prob")]) > 0.5
    result = stats.compare(said == [row["label"] == 1 for row in first], said, groups)
    accuracies = ["{acc:.3f} [{low:.3f}, {high:.3f}]".format(**result[who]) for who in stats.WHO]
    print("|", d, "|", *(f"{one} |" for one in accuracies), told(result["pgr"]), "|")
PYTHON
}

probes() {
    for s in 0 1 2; do
        for rule in xent conf; do
            echo "train_strong.py $out/$s/xs.jsonl --probe --seed=$s --loss=$rule" \
                "--out=$out/$s/lp-$rule"
        done
        echo "train_strong.py $out/$s/xs.jsonl --probe --target=truth --seed=$s --out=$out/$s/lp-gt"
        echo "train_strong.py $out/$s/xs.jsonl --probe --target=truth --seed=$s" \
            "--model=$out/$s/xs-m-xent/model --out=$out/$s/ft-lp-gt"
        for target in weak truth; do
            echo "eval.py --model=facts/m --shots=5 --labels=$out/$s/xs.jsonl --target=$target" \
                "--seed=$s --out=$out/$s/shots-$target"
        done
        echo "eval.py --model=facts/m --shots=0 --out=$out/$s/shots-0"
    done | side
    $python eval.py "$out/?/*lp-*" >> $out/log.txt
    head "Saliency: linear probes and fine-tuning of m, labels of xs"
    row "lp(weak)" "$out/*/xs" "$out/*/lp-xent" "$out/*/ceiling-m"
    row "lp(weak), conf" "$out/*/xs" "$out/*/lp-conf" "$out/*/ceiling-m"
    row "lp(gt)" "$out/*/xs" "$out/*/lp-gt" "$out/*/ceiling-m"
    row "ft(weak)" "$out/*/xs" "$out/*/xs-m-xent" "$out/*/ceiling-m"
    row "ft(weak) + lp(gt)" "$out/*/xs" "$out/*/ft-lp-gt" "$out/*/ceiling-m"
    row "ft(gt)" "$out/*/xs" "$out/*/ceiling-m" "$out/*/ceiling-m"
    head "Prompting m"
    for kind in 0 weak truth; do
        row "shots-$kind" "$out/*/xs" "$out/*/shots-$kind" "$out/*/ceiling-m"
    done
}

analysis() {
    printf '\n### Student less student of xent\n\n| | xs -> m | s -> m | xs -> s |\n'
    echo '|---|---|---|---|'
    gains xs-m-,s-m-,xs-s- xent "${rules#xent}"
    printf '\n### Student less student of one supervisor\n\n| | |\n|---|---|\n'
    gains "" xs-m-xent "$(cd $out/0 && ls -d v-*)"
    printf '\n### Student less student of the own errors\n\n| | |\n|---|---|\n'
    gains e- own "random longest shortest unconfident"
    for rule in xent conf; do
        printf '\n### Why: xs -> m, %s\n\n```\n' $rule
        $python pgr.py "$out/*/xs" "$out/*/xs-m-$rule" "$out/*/ceiling-m" --curves \
            --out="$out/pgr/xs-m-$rule.json" |
            sed -n '/agrees with/,$p' | grep -v '^$\|^runs'
        printf '```\n'
    done
}

base
for part in ${*:-rules errors ensembles features probes analysis}; do $part; done
