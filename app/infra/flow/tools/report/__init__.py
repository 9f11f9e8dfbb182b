"""The report of a run: one HTML file that works offline. See docs/architecture.md for its rooms."""
