"""The orchestrator's journal in SQLite: attempts, owners, events and what is yet to be published."""
