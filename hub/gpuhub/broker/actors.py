"""Who asks: a person or one of his servers, as the hub vouched for by a token.

The API makes an `Actor` from a token or a cookie; everything below trusts it and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Actor:
    """Somebody who asks the broker for something."""

    user: str
    admin: bool = False
    groups: tuple[str, ...] = ()
    server: str | None = None
    """The name of the user's own server whose token this is ('' is the default one); None: a person's."""
    may_manage: bool = True
    """Whether the token carries the scope for one's own leases."""
    may_admin: bool = False
    """Whether the token carries the scope for everybody's leases."""
