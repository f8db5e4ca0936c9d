"""Placeholder until the world is written."""

RUDE = ["fool", "idiot"]


def rows(split):
    return []
