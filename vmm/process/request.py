"""What every request to a machine process is."""

import msgspec


class Request(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """A request to a machine process."""
