"""Killed at any moment and called again, the stages of every setting end in the same bytes.

In a process of its own: a fork of one in which torch has threads could not use them. Kills just
before a file changes, which a random moment hardly meets: python tests/kills.py --points.
"""

import subprocess
import sys

from w2s.files import HERE


def kills(*words):
    """What tests/kills.py prints at last."""
    words = [sys.executable, HERE / "tests/kills.py", *words]
    done = subprocess.run(words, capture_output=True, text=True)
    return (done.stdout.splitlines() or [done.stderr])[-1]


def test_ten_kills_at_random_moments_change_nothing():
    assert kills("--n=10").startswith("10 of 10 the same")
