"""RAM blocks in memfd, the guest-physical map, dirty bitmaps and logs, witnesses and digests."""
