"""The command line: `python -m app.infra.flow`, or `night-batch` where the wheel is installed."""

from .tools.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
