"""A container engine as its client, `docker`, reaches it. Nothing but the standard library is used."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

_SECONDS: Final = 600.0


@dataclass(frozen=True)
class Engine:
    """An engine, by the environment that leads the client to it."""

    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def docker(self, *arguments: str, seconds: float = _SECONDS, stdin: str = "") -> str:
        """Run the client and return what it said.

        Raises:
            RuntimeError: It failed.
        """
        done = self.attempt(*arguments, seconds=seconds, stdin=stdin)
        if done.returncode != 0:
            raise RuntimeError(f"docker {' '.join(arguments)}: {done.stderr[-2000:]}")
        return done.stdout

    def attempt(self, *arguments: str, seconds: float = _SECONDS, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run the client."""
        return subprocess.run(
            ("docker", *arguments),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env=dict(self.environment),
        )

    @property
    def answers(self) -> bool:
        """Whether there is an engine behind the client."""
        return self.attempt("info", seconds=30).returncode == 0
