"""Intel VT-d as the guest sees it: registers, tables, walk, invalidation queue, faults, notifiers."""
