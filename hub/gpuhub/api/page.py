"""The page at ``/services/gpu/``: who I am, GPUs now, my leases with Keep and Release, my limits.

For a browser that has signed in at the hub; no script at all. Promises: every form proves that it comes
from this page, and the proof is given only to a page that a person navigated to, never to a fetch or a
frame; a refusal is shown as its sentence and hint.
"""

from __future__ import annotations

from datetime import UTC
from html import escape
from typing import Literal
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from gpuhub.api.auth import Caller, caller, check_own_page, manager
from gpuhub.api.leases import known_form
from gpuhub.api.parts import Parts, PartsHere
from gpulease.errors import GpuhubError, NotSignedIn
from gpulease.models import Lease, Me, Pool, QuotaUse
from gpulease.states import LeaseState
from gpuspawner.language import gettext as _
from gpuspawner.language import language, listen_to, spoken

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .4rem .6rem .4rem 0; text-align: left; }
th, td { border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent); }
form { display: inline; }
.scroll { overflow-x: auto; }
.quiet { opacity: .75; }
"""


async def listen(request: Request) -> None:
    """Speak the browser's language."""
    listen_to(request.headers.get("accept-language"))


router = APIRouter(include_in_schema=False, dependencies=[Depends(listen)])


@router.get("")
async def without_slash(here: PartsHere) -> Response:
    return RedirectResponse(here.signin.prefix, status_code=301)


@router.get("/")
async def page(request: Request, here: PartsHere) -> Response:
    try:
        who = await caller(request)
    except NotSignedIn:
        return here.signin.begin(request, here.signin.prefix)
    except GpuhubError as error:
        return _refusal(error)
    try:
        me = await here.broker.me(await manager(who))
    except GpuhubError as error:
        return _refusal(error)
    return HTMLResponse(_page(me, here.signin.prefix, _proof(request, here, who)), headers=HEADERS)


@router.get("/login")
async def login(request: Request, here: PartsHere, to: str = "") -> Response:
    return here.signin.begin(request, to)


@router.get("/oauth_callback")
async def callback(request: Request, here: PartsHere) -> Response:
    try:
        return await here.signin.finish(request)
    except GpuhubError as error:
        return _refusal(error)


@router.post("/leases/{lease_id}/{act}")
async def act_on_lease(
    request: Request, here: PartsHere, lease_id: str, act: Literal["keep", "release"]
) -> Response:
    try:
        token = here.signin.token(request)
        if token is None:
            raise NotSignedIn("You are not signed in.", hint="Open the page again.")
        form = parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=10)
        check_own_page(request, here, token, form.get("proof", [""])[0])
        who = Caller(await here.tokens.identify(token), token)
        do = here.broker.keep if act == "keep" else here.broker.release
        await do(await manager(who), known_form(lease_id))
    except ValueError:
        return Response(status_code=400)
    except GpuhubError as error:
        return _refusal(error)
    return RedirectResponse(here.signin.prefix, status_code=303)


def _proof(request: Request, here: Parts, who: Caller) -> str:
    visited = request.headers.get("sec-fetch-mode", "navigate") == "navigate"
    whole = request.headers.get("sec-fetch-dest", "document") == "document"
    return here.signin.proof(who.token) if visited and whole else ""


def _refusal(error: GpuhubError) -> HTMLResponse:
    said = f"<p>{escape(spoken(error.message))}</p><p class=quiet>{escape(spoken(error.hint))}</p>"
    body = f"<h1>{_('GPUs')}</h1>{said}"
    return HTMLResponse(_frame(body), status_code=error.status, headers=HEADERS)


def _frame(body: str) -> str:
    return (
        f'<!doctype html><html lang="{language()}"><head><meta charset="utf-8">'
        f"<title>{_('GPUs')} · gpuhub</title>"
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body><main>{body}</main></body></html>"
    )


def _page(me: Me, prefix: str, proof: str) -> str:
    who = _("Signed in as {user}").format(user=f"<strong>{escape(me.user)}</strong>")
    groups = _("Groups: {groups}").format(groups=escape(", ".join(me.groups))) if me.groups else ""
    parts = [f"<h1>{_('GPUs')}</h1><p>{who}</p><p class=quiet>{groups}</p>", f"<h2>{_('GPUs now')}</h2>"]
    if me.pools:
        parts.append(_table((_("Kind"), _("Free"), _("Waiting")), [_pool(pool) for pool in me.pools]))
    else:
        parts.append(f"<p>{_('No GPU is on offer at the moment.')}</p>")
    parts.append(f"<h2>{_('Your GPUs')}</h2>")
    if me.leases:
        rows = [_lease(lease, prefix, proof) for lease in me.leases]
        parts.append(_table((_("Server"), _("Kind"), _("State"), ""), rows))
    else:
        hint = _("No GPU yet. Flip the switch in a notebook's toolbar, or run {command} in a terminal.")
        parts.append(f"<p>{hint.format(command='<code>gpu on</code>')}</p>")
    parts.append(f"<h2>{_('Your limits')}</h2>")
    parts.append(_table((_("Limit"), _("Used"), _("Allowed")), [_quota(quota) for quota in me.quotas]))
    return _frame("".join(parts))


def _pool(pool: Pool) -> tuple[str, ...]:
    size = _("{size} GB").format(size=f"{pool.memory_bytes / 1e9:.1f}")
    free = _("{free} of {total}").format(free=pool.free, total=pool.total)
    return f"{escape(pool.title)} · {size}", free, str(pool.waiting)


def _lease(lease: Lease, prefix: str, proof: str) -> tuple[str, ...]:
    devices = ", ".join(device.name for device in lease.devices) or f"{lease.gpus} × {lease.pool}"
    said = lease.position.message if lease.position else lease.message
    acts = []
    if lease.warning is not None:
        said = lease.warning.message
        if lease.warning.keep.times_left:
            acts.append(_button(prefix, lease, "keep", _("Keep"), proof))
    if lease.state in (LeaseState.QUEUED, LeaseState.STARTING, LeaseState.ACTIVE):
        word = _("Cancel") if lease.state is LeaseState.QUEUED else _("Release")
        acts.append(_button(prefix, lease, "release", word, proof))
    state = [_state(lease.state), f"<span class=quiet>{escape(said)}</span>"]
    if lease.ends_at is not None:
        latest = f"{lease.ends_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        state.append(f"<span class=quiet>{_('Ends at the latest at {time}.').format(time=latest)}</span>")
    server = escape(lease.server) or _("default")
    return server, escape(devices), "<br>".join(state), " ".join(acts) if proof else ""


def _state(state: LeaseState) -> str:
    return {
        LeaseState.QUEUED: _("waiting"),
        LeaseState.STARTING: _("starting"),
        LeaseState.ACTIVE: _("on"),
        LeaseState.ENDING: _("saving"),
        LeaseState.ENDED: _("released"),
    }[state]


def _button(prefix: str, lease: Lease, act: str, word: str, proof: str) -> str:
    action = escape(f"{prefix}leases/{lease.id}/{act}", quote=True)
    return (
        f'<form method="post" action="{action}"><input type="hidden" name="proof" value="{proof}">'
        f"<button>{word}</button></form>"
    )


def _quota(quota: QuotaUse) -> tuple[str, ...]:
    name = {
        "gpus_at_once": _("GPUs at once"),
        "gpu_hours_per_week": _("GPU-hours in seven days"),
        "longest_lease_hours": _("Longest time with a GPU, hours"),
    }[quota.name]
    used = "–" if quota.used is None else f"{quota.used:g}"
    return name, used, _("no limit") if quota.allowed is None else f"{quota.allowed:g}"


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
