"""A machine goes on in another process of its host: an attempt whose destination is the host itself."""
