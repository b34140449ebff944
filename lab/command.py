"""`viaduct lab`: run scenarios, list them, and print the documents' matrix."""

import click


@click.group()
def lab() -> None:
    """Reproduce what the documents say about dirty pages behind a vIOMMU."""
