"""Several supervisors, one label: how K answers to a row become one (label.py).

A probability is voted on by its mean. Of moves and texts, one of those that were given wins: what
most supervisors say, or what is most probable under all of them together.
"""

import collections

import numpy as np


def combine(votes, vote, weights=None):
    """K votes as one: of moves and texts the plurality, else the weighted mean P or share of 1s."""
    if isinstance(votes[0], str):
        counts = collections.Counter()
        for answer, weight in zip(votes, [1] * len(votes) if weights is None else weights):
            counts[answer] += weight
        return counts.most_common(1)[0][0]  # of equals the first named
    votes = np.array(votes) if vote == "soft" else np.array(votes) > 0.5
    return np.clip(np.average(votes, axis=0, weights=weights), 0, 1).tolist()


def most_probable(setting, runs, rows, answers, weights=None, device=None, dtype=None):
    """N answers: to each row the one of its K that has the highest mean probability under all runs.

    Of language models; answers [K][N], weights [K] (default: all the same). Of equals the first.
    """
    different = [list(dict.fromkeys(said)) for said in zip(*answers)]
    pairs = [(row, one) for row, said in zip(rows, different) for one in said if len(said) > 1]
    if not pairs:
        return [said[0] for said in different]
    asked = [row | {"weak": one} for row, one in pairs]
    together = iter(mixture(likelihoods(setting, runs, asked, "weak", device, dtype), weights))
    best = []
    for said in different:
        of_each = [next(together) for _ in said] if len(said) > 1 else [0]
        best.append(said[int(np.argmax(of_each))])
    return best


def mixture(logs, weights=None):
    """Log of the (weighted) mean over K models of probabilities whose logs are [K, N]: [N]."""
    weights = np.full(len(logs), 1 / len(logs)) if weights is None else np.asarray(weights)
    with np.errstate(divide="ignore"):
        return np.logaddexp.reduce(logs + np.log(weights)[:, None], axis=0)


def likelihoods(setting, runs, rows, given, device=None, dtype=None):
    """Log-probabilities in nats [K, N] of the field `given` of N rows under K runs' models.

    -inf for what a model cannot write, such as a move that its tokenizer cannot spell.
    """
    from w2s import answering, lm

    logs = np.full((len(runs), len(rows)), -np.inf)
    rows = [row | {"place": i} for i, row in enumerate(rows)]
    for run, of_run in zip(runs, logs):
        model, tokenizer = answering.model_of(run, device, setting.OUTPUTS)
        encoded = setting.encode(rows, tokenizer, model, given=given)
        of_run[[row["place"] for row in encoded]] = lm.log_likelihoods(model, encoded, dtype)
    return logs


def of_labels(probs, label):
    """The likelihood [K, N] of labels [N] under P(label = 1) [K, N]."""
    return np.clip(np.where(label == 1, probs, 1 - probs), 1e-9, None)


def of_logs(logs):
    """The likelihood [K, M] of M rows, up to a factor of each, from its logs [K, N]; rows that no
    model can have written are left out."""
    logs = logs[:, np.isfinite(logs).any(axis=0)]
    return np.exp(logs - logs.max(axis=0))


def learn(likelihood, steps=1000):
    """Weights [K] that sum to 1 and give the truth the highest likelihood as a mixture.

    likelihood [K, N]: of the truth of N rows under each supervisor, up to a factor of each row. By
    expectation maximisation; the function is concave. (2510.21332 does so along with the student.)
    """
    weights = np.full(len(likelihood), 1 / len(likelihood))
    for _ in range(steps):
        weights = (weights[:, None] * likelihood / (weights @ likelihood)).mean(axis=1)
    return weights


def tell_weights(runs, weights):
    """Print the weights that were learned."""
    print("weights:", ", ".join(f"{run} {weight:.2f}" for run, weight in zip(runs, weights)))
    if max(weights) > 0.99:
        print(f"all weight is on {runs[weights.argmax()]}: these are its labels alone")
