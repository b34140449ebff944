"""What a guest's memory and its devices' work are made of: real code and text (`vmm.guest.host_material` reads it)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Material:
    """What was read: code and text, the files in their order, and SHA-256 over code and then text."""

    code: bytes
    text: bytes
    files: tuple[str, ...]
    sha256: str
