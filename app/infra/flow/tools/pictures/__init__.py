"""Pictures of flows and runs: what stands in one, where it stands, and how it is written as SVG, Mermaid, DOT or plain text."""
