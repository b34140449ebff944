"""A migration in one process: the same model and engines as between hosts, a simulated link, virtual time."""
