"""Killed at any moment and called again, the stages of every setting end in the same bytes."""

import kills


def test_ten_kills_at_random_moments_change_nothing(tmp_path):
    said = []
    same, lost = kills.kills(tmp_path, 10, 0, tell=said.append)
    assert same == 10, "\n".join(said)


def test_a_kill_just_before_any_change_of_a_file_changes_nothing(tmp_path):
    """A few of these moments, which a random one hardly meets; tests/kills.py --points has all."""
    said = []
    same, _ = kills.kills(tmp_path, 3, 0, points=True, tell=said.append)
    assert same == 3, "\n".join(said)


def test_the_same_stages_twice_are_the_same_bytes(tmp_path):
    kills.warm_up()
    for ds in kills.SMALL:
        first, second = (kills.reference(ds, f"{tmp_path}/{ds}{k}")[0] for k in range(2))
        assert first == second and len(first) > 20
