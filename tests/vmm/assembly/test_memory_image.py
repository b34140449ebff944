import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vmm.assembly import memory_image
from vmm.assembly.document_faults import InvalidDocument
from vmm.assembly.memory_image import fill_from_image, fill_from_mixture
from vmm.guest import host_material
from vmm.guest.host_material import NoMaterial, read_material
from vmm.memory.quantities import PAGE_SIZE
from vmm.memory.ram_block import RamBlock

SIZE = 32 << 20


@pytest.fixture
def block() -> Iterator[RamBlock]:
    block = RamBlock.create("test", SIZE)
    yield block
    block.close()


def test_the_mixture_is_a_third_holes_and_pages_that_differ(block: RamBlock) -> None:
    source = fill_from_mixture(block)
    held = sum(count for _, count in block.extents())
    assert 0.6 < held / block.pages < 0.72
    digests = {hashlib.sha256(page).digest() for page in block.words if page.any()}
    assert len(digests) > 0.98 * held
    material = read_material()
    assert source == memory_image.MemorySource("mixture", material.files, material.sha256)
    assert len(source.files) > 10


def test_the_mixture_is_the_same_on_the_same_host(block: RamBlock) -> None:
    other = RamBlock.create("other", SIZE)
    assert fill_from_mixture(block) == fill_from_mixture(other)
    assert (block.words == other.words).all()
    other.close()


def test_material_is_code_and_text() -> None:
    material = read_material()
    assert material.code[:4] == b"\x7fELF"
    assert b"import" in material.text
    assert hashlib.sha256(material.code + material.text).hexdigest() == material.sha256


def test_a_host_without_any_of_the_files_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host_material, "_code_paths", lambda: [tmp_path / "none"])
    with pytest.raises(NoMaterial, match="no machine code"):
        read_material()


@pytest.mark.parametrize("length", [0, 1, PAGE_SIZE, (5 << 20) + 77, SIZE])
def test_an_image_is_where_ram_begins(block: RamBlock, tmp_path: Path, length: int) -> None:
    content = np.random.default_rng(1).integers(0, 256, length, dtype=np.uint8)
    content[PAGE_SIZE : 3 * PAGE_SIZE] = 0
    path = tmp_path / "ram.img"
    path.write_bytes(content.tobytes())
    source = fill_from_image(block, path)
    extents = list(block.extents())
    assert bytes(block.data[:length]) == content.tobytes()
    assert not any(block.data[length : length + PAGE_SIZE])
    assert source == memory_image.MemorySource("image", (str(path),), hashlib.sha256(content.data).hexdigest())
    held = {page for first, count in extents for page in range(first, first + count)}
    assert not held & {1, 2}
    assert len(held) <= -(-length // PAGE_SIZE)


def test_an_image_that_cannot_be_used_is_a_fault(block: RamBlock, tmp_path: Path) -> None:
    with pytest.raises(InvalidDocument, match=r"memory\.image: Cannot be read"):
        fill_from_image(block, tmp_path / "none.img")
    path = tmp_path / "large.img"
    with path.open("wb") as file:
        file.truncate(SIZE + 1)
    with pytest.raises(InvalidDocument, match="do not fit"):
        fill_from_image(block, path)
    assert not list(block.extents())
