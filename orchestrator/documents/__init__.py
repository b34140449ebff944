"""The documents that `--json` prints, one type a document; docs/schemas holds their JSON Schemas."""
