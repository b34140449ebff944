"""Hosts to call, as a process and as objects."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vfio_host.host_process import HostProcess, running_host
from tests.vfio_host.kernels import DirectKernel, Kernel, ProcessKernel, StartHost
from vfio_host.interface.calls import HostConfiguration


@pytest.fixture(params=["process", "objects"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StartHost]:
    """Give a function that starts a host of a configuration."""
    with contextlib.ExitStack() as stack:

        def starter(configuration: HostConfiguration) -> Kernel:
            if request.param == "objects":
                direct = DirectKernel(configuration)
                stack.callback(direct.close)
                return direct
            client = stack.enter_context(running_host(tmp_path, configuration)).connect()
            stack.callback(client.close)
            return ProcessKernel(client)

        yield starter


@pytest.fixture
def host(tmp_path: Path) -> Iterator[HostProcess]:
    """Give a running host with one accelerator, qat0."""
    with running_host(tmp_path) as process:
        yield process
