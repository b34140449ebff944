"""gRPC and TLS: channels, servers, identity, deadlines, errors as status."""
