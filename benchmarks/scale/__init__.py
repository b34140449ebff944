"""A thousand simulated hosts behind the real API, and a real orchestrator over them."""
