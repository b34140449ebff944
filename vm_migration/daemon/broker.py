"""A broker inside this process, for the demo: loopback, MQTT 3.1.1, nothing kept after its end."""

import contextlib
import logging
from collections.abc import AsyncIterator

from amqtt.broker import Broker as AmqttBroker  # type: ignore[import-untyped]  # amqtt ships no types

_ANONYMOUS = "amqtt.plugins.authentication.AnonymousAuthPlugin"


@contextlib.asynccontextmanager
async def local_broker() -> AsyncIterator[str]:
    """Run a broker on a free loopback port and give its URL."""
    # It reports each client that tries MQTT 5 first as a warning, which here is what is expected.
    for name in ("amqtt", "transitions"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    broker = AmqttBroker(
        {
            "listeners": {"default": {"type": "tcp", "bind": "127.0.0.1:0"}},
            "plugins": {_ANONYMOUS: {"allow_anonymous": True}},
        }
    )
    await broker.start()
    try:
        listener = broker._servers["default"].instance  # noqa: SLF001  # nothing public tells the port that it got
        yield f"mqtt://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        await broker.shutdown()
