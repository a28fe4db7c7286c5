"""A reserved port: one server binds it, and nobody after it, until it is released."""

from __future__ import annotations

import socket

import pytest

from gpuspawner.reservation import LOOPBACK, Reservation


def listen(port: int, host: str = LOOPBACK, option: int = socket.SO_REUSEADDR) -> socket.socket:
    """As Tornado listens."""
    one = socket.socket()
    try:
        one.setsockopt(socket.SOL_SOCKET, option, 1)
        one.bind((host, port))
        one.listen()
    except OSError:
        one.close()
        raise
    return one


@pytest.mark.parametrize("option", [socket.SO_REUSEADDR, socket.SO_REUSEPORT])
@pytest.mark.parametrize("host", [LOOPBACK, "0.0.0.0"])
def test_after_the_servers_end_nobody_listens_there_until_it_is_released(host: str, option: int) -> None:
    with Reservation() as reserved:
        server = listen(reserved.port)
        reserved.close_to_others()
    with socket.create_connection((LOOPBACK, reserved.port)):
        server.accept()[0].close()
    server.close()
    with pytest.raises(OSError, match="in use"):
        listen(reserved.port, host, option)
    reserved.release()
    listen(reserved.port).close()


def test_who_bound_in_time_cannot_listen_either() -> None:
    with Reservation() as reserved, socket.socket() as early:
        early.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        early.bind((LOOPBACK, reserved.port))
        server = listen(reserved.port)
        reserved.close_to_others()
        server.close()
        with pytest.raises(OSError, match="in use"):
            early.listen()
        reserved.release()


def test_a_start_that_failed_leaves_no_port_reserved() -> None:
    with Reservation() as reserved:
        pass
    listen(reserved.port).close()
    with socket.socket() as plain:
        plain.bind((LOOPBACK, reserved.port))
