"""The same workloads on other engines, each in an environment of its own, beside ours in the same run."""
