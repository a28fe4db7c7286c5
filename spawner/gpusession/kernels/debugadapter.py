"""debugpy's adapter, without any address that somebody could connect to.

Exists because debugpy starts its adapter with two ports on loopback and no password: every account
of the machine could run code in a notebook that is being debugged. Promises: this process listens
nowhere; it talks only over sockets that the kernel hands it, and ends with the kernel.
Run as ``python -I debugadapter.py FD FOLDER``: FD is the kernel's control socket, FOLDER holds
debugpy. Over FD come sockets, each with one byte that says what is at its other end.
"""

import os
import socket
import sys

DEBUGGEE, CLIENT = b"d", b"c"


def main(arguments: list[str]) -> None:
    """Serve until the control socket closes; then end this process."""
    control = socket.socket(fileno=int(arguments[0]))
    control.set_inheritable(False)
    sys.path.insert(0, arguments[1])
    from debugpy.adapter import clients, servers

    # An adapter that "serves" already opens no port when a client attaches. Nobody can connect to
    # this one: it is bound, and never listens.
    closed_door = socket.socket()
    closed_door.bind(("127.0.0.1", 0))
    clients.listener = servers.listener = closed_door
    while True:
        what, files, _, _ = socket.recv_fds(control, 1, 1)
        if not what:
            os._exit(0)  # debugpy's threads are in the way of an ordinary end
        for file in files:
            taken = socket.socket(fileno=file)
            if what == DEBUGGEE:
                servers.Connection(taken)
            else:
                clients.Client(taken)


if __name__ == "__main__":
    main(sys.argv[1:])
