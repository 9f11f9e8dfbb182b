"""What the engine costs: every line of the budget beside its own yardstick, measured in the same run.

`python -m benchmarks` runs them all, `python -m benchmarks --list` names them. Each module's first words say how its lines are
measured.
"""
