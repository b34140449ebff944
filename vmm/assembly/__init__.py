"""A machine from its specification; pause, resume, save, load."""
