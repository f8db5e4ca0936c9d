"""Killed at any moment and called again, the stages of every setting end in the same bytes.

In a process of its own: a fork of one in which torch has threads could not use them.
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


def test_a_kill_just_before_any_change_of_a_file_changes_nothing():
    """A few of these moments, which a random one hardly meets; tests/kills.py --points has all."""
    assert kills("--n=3", "--points").startswith("3 of 3 the same")
