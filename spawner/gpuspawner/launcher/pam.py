"""Ask PAM about one password, in a process of its own.

A PAM module may fork, hang or leak; none of that belongs into the launcher. Run as
``python -m gpuspawner.launcher.pam SERVICE USER`` with the password on standard input; prints
``yes`` or ``no``. The password is never in an argument, an environment or a log.
"""

from __future__ import annotations

import sys


def accepted(service: str, user: str, password: str) -> bool:
    """Return whether PAM accepts the password and the account may be used now."""
    import pamela

    try:
        pamela.authenticate(user, password, service=service)
        pamela.check_account(user, service=service)
    except pamela.PAMError:
        return False
    return True


def main() -> int:
    service, user = sys.argv[1:3]
    print("yes" if accepted(service, user, sys.stdin.read()) else "no", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
