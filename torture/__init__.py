"""Attacks on the engine's promises that take longer than a test suite may: in turn, for as long as one likes.

    python -m torture --minutes 10        every attack in turn, with new seeds
    python -m torture.crash_pairs         each pair of deaths, on every shape and store
    python -m torture.mutants             whether the tests notice when the engine is broken

Each attack is a module with a function `attack(seed, scratch)` that gives figures, or raises where a promise was broken. What the
attacks are made of stands with the tests.
"""
