"""Why dirty pages are tracked: the global dirty tracking mask of semantics 5.4, which has one bit for each reason."""

from enum import Enum


class TrackingReason(Enum):
    """Listener and vIOMMU do the same for every reason; devices go to pre-copy only for a migration."""

    MIGRATION = 1
    DIRTY_RATE = 2
    DIRTY_LIMIT = 4
