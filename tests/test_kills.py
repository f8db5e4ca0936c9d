"""Killed at any moment and called again, the stages of every setting end in the same bytes.

In a process of its own: a fork of one in which torch has threads could not use them. Kills just
before a file changes, which a random moment hardly meets: python tests/kills.py --points.
"""

from w2s.files import HERE


def test_five_kills_at_random_moments_change_nothing(apart):
    killer = apart([HERE / "tests/kills.py", "--n=5"])
    out, err = killer.communicate()
    assert out.splitlines()[-1].startswith("5 of 5 the same"), out + err
