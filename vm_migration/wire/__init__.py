"""Model values to bytes and back: the bulk frame, the bitmap codec, protobuf."""
