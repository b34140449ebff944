"""Makes the images of deploy/Dockerfile from this checkout, and the site of deploy/compose.yaml from them."""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests.deployment.deployment import CONTROL, MIGRATION, PROJECT, Deployment
from tools.deploy import compose, ingredients
from tools.deploy.client import Engine

_IN_TESTS: Final = ("libfaketime",)
"""What tests/deployment/overrides would install one by one."""


@contextlib.contextmanager
def deployed(engine: Engine, folder: Path, **chosen: str) -> Iterator[Deployment]:
    """Have the site's images made and the site up; nothing of it is left, but the base image on an engine of others.

    `chosen` are further variables of deploy/compose.yaml.
    """
    with ThreadPoolExecutor() as pool:  # both wait for a mirror, mostly
        program = pool.submit(_compose, engine, folder / "compose")
        found = pool.submit(ingredients.all_of, engine, folder, registry=False, beside=_IN_TESTS)
    images = {"VIADUCT_IMAGE": PROJECT, "VIADUCT_SERVICES_IMAGE": f"{PROJECT}-services"}
    networks = {"VIADUCT_CONTROL_NET": CONTROL, "VIADUCT_MIGRATION_NET": MIGRATION}
    site = Deployment(engine, program.result(), {**found.result(), **images, **networks, **chosen})
    site.compose("down", "--volumes", "--timeout", "0")  # what a test that was killed has left on an engine of others
    try:
        site.compose("build")
        site.up()
        yield site
    finally:
        site.compose("down", "--volumes", "--timeout", "0")
        engine.attempt("image", "rm", "--force", *images.values())


def _compose(engine: Engine, folder: Path) -> Sequence[str]:
    return compose.found(engine) or (str(compose.fetched(folder)),)
