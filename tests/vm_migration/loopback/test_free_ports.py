"""Ports for daemons that are about to start: nobody's, and nobody gets them by connecting."""

import socket

import pytest

from vm_migration.loopback.ports import free_ports, not_given_away


def test_ports_are_different_ones_that_can_be_listened_on() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize(
    ("given_away", "among"),
    [
        ("32768\t60999\n", range(10_000, 32_768)),
        ("11000 65535", range(10_000, 11_000)),
        ("1024 65535", range(10_000, 65_536)),
    ],
)
def test_what_connections_are_given_is_left_out_where_enough_is_left(given_away: str, among: range) -> None:
    assert not_given_away(given_away) == among
