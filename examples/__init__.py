"""Programs to read, run and start from. From the root of the repository: `python -m examples.decorators`."""
