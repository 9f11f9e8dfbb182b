"""The command line: `python -m app.infra.flow`, or `night-batch` where the wheel is installed."""

try:
    from .tools.cli import main
except KeyboardInterrupt:  # Ctrl-C while it is loaded
    raise SystemExit(130) from None

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
