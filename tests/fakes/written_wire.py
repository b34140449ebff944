"""A direct connection on which everything that will ever come has come."""

from collections.abc import Sequence

from vm_migration.link.direct_wire import DirectWire


class WrittenWire(DirectWire):
    """Reads from bytes; behind the last one the peer has closed."""

    def __init__(self, data: bytes) -> None:
        self._left = memoryview(data)

    def read_exactly(self, into: memoryview, deadline: float | None = None) -> bool:
        del deadline
        if not self._left:
            return False
        if len(self._left) < len(into):
            raise ConnectionResetError("Closed in the middle of a message")
        into[:] = self._left[: len(into)]
        self._left = self._left[len(into) :]
        return True

    def fill(self, places: Sequence[memoryview]) -> None:
        for place in places:
            if not self.read_exactly(place):
                raise ConnectionResetError("Closed in the middle of a message")
