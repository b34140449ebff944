"""The daemon that creates machines and lets them go."""
