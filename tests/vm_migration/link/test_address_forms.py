"""host:port, and what counts as loopback."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vm_migration.errors import InvalidInput
from vm_migration.link.address import is_loopback, join_address, refuse_plaintext, split_address


@settings(max_examples=50)
@given(st.sampled_from(["10.0.0.1", "::1", "fe80::2", "host-a", "host-a.example.org"]), st.integers(0, 65535))
def test_join_and_split_are_inverse(host: str, port: int) -> None:
    assert split_address(join_address(host, port)) == (host, port)


@pytest.mark.parametrize(
    "text", ["", "host", ":1", "host:", "host:x", "host:65536", "::1:1", "a b:1", "[::1:1", "h:-1", "h:²"]
)
def test_bad_addresses(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        split_address(text)
    assert caught.value.code == "bad-address"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)
    refuse_plaintext(join_address(host, 1))


@pytest.mark.parametrize("host", ["10.0.0.1", "0.0.0.1", "::", "example.org", "localhost.example.org", "128.0.0.1"])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(InvalidInput) as caught:
        refuse_plaintext(join_address(host, 1))
    assert caught.value.code == "plaintext-refused"
