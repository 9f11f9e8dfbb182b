"""The report of a run: one HTML file that works offline. Its pieces know one another as the table in docs/architecture.md says."""
