"""The command line and the daemon that decide and drive."""

import os

# What the C core of gRPC writes to stderr is neither our log nor our two lines; it reads this once, when imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
