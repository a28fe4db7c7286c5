"""The ``gpu`` command: this server's GPU from a terminal.

Exists so that what the notebook's switch and the sidebar do can be typed and scripted. Promises:
the same lease as theirs; `--json` for every command; documented exit codes (`gpusession.shell.codes`);
a quick start, so nothing heavy is imported here.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import typer

from gpulease import errors
from gpusession.shell import codes, texts
from gpusession.shell.client import Server
from gpusession.shell.following import (
    Refused,
    now,
    open_notebook,
    until_active,
    until_moved,
    until_released,
)
from gpusession.shell.screen import Screen

app = typer.Typer(
    name="gpu",
    help="This server's GPU: ask for one, run programs on it, give it back.\n\n"
    "Without a command it shows where things stand.",
    epilog=codes.EXPLAINED,
    no_args_is_help=False,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for scripts.")]
PoolOption = Annotated[str | None, typer.Option("--pool", help="Which kind of GPU; see `gpu queue`.")]
Gpus = Annotated[int, typer.Option("--gpus", min=1, help="How many GPUs.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done, or return at once.")]
Keep = Annotated[
    bool,
    typer.Option("--keep", help="Go on when this terminal is closed; output then goes into gpu-run-PID.log."),
]
SOCKET = "GPUHUB_SOCKET"

Run = TypeVar("Run", bound=Callable[..., None])


def _answers(command: Run) -> Run:
    """Errors become one sentence with a hint (or JSON) and an exit code."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        screen = Screen.here(as_json=bool(kwargs.get("as_json")))
        try:
            command(*args, **kwargs)
        except errors.GpuhubError as error:
            _refuse(screen, error.as_dict(), codes.of_error(error.code))
        except Refused as refused:
            _refuse(screen, refused.data, refused.code)
        except KeyboardInterrupt:
            screen.clear()
            raise typer.Exit(codes.INTERRUPTED) from None
        except BrokenPipeError:
            # Who reads us has enough, as with any program in a pipe.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(141) from None

    return wrapped  # type: ignore[return-value]


def _refuse(screen: Screen, error: dict[str, Any], code: int) -> None:
    if screen.as_json:
        screen.clear()
        screen.data({"error": error})
    else:
        screen.error(str(error["message"]), str(error.get("hint") or ""))
    raise typer.Exit(code)


def _server() -> Server:
    return Server(os.environ.get(SOCKET))


@app.callback(invoke_without_command=True)
def _bare(context: typer.Context, as_json: Json = False) -> None:
    if context.invoked_subcommand is None:
        status(as_json=as_json)


@app.command()
@_answers
def status(as_json: Json = False) -> None:
    """Show this server's GPU, what runs on it, and what it is doing.

    \b
    gpu
    gpu status --json | jq .lease.state
    """
    screen, found = Screen.here(as_json=as_json), _server().status()
    if as_json:
        screen.data(found)
    else:
        screen.labelled(texts.status_lines(found, now()))


@app.command()
@_answers
def on(
    notebook: Annotated[str | None, typer.Argument(help="Move this open notebook onto the GPU.")] = None,
    pool: PoolOption = None,
    gpus: Gpus = 1,
    wait: Wait = True,
    move_anyway: Annotated[
        bool, typer.Option("--move-anyway", help="Move, even if some variables stay behind.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Ask for a GPU; it stays until `gpu off`, or until it is idle for too long.

    \b
    gpu on                    wait in line until there is one (Ctrl-C leaves the line)
    gpu on --pool a100 --no-wait
    gpu on train.ipynb        and move this notebook onto it
    """
    screen, server = Screen.here(as_json=as_json), _server()
    before = server.status()
    if notebook is not None:
        _move(screen, server, open_notebook(server, before, notebook), "worker", pool, wait, move_anyway)
        return
    had = before.get("lease")
    lease = server.call("POST", "lease", {"pool": pool, "gpus": gpus})
    ours = had is None or had["id"] != lease["id"]
    if wait and lease["state"] != "active":
        lease = until_active(server, screen, lease, ours=ours)
    if as_json:
        screen.data(lease)
    elif lease["state"] == "active":
        screen.say(f"{texts.gpu_name(lease, before['pools'])} is on.")
    else:
        screen.say(texts.waiting_line(lease, now()))


@app.command()
@_answers
def off(
    notebook: Annotated[str | None, typer.Argument(help="Move only this notebook back.")] = None,
    at_once: Annotated[bool, typer.Option("--now", help="End what `gpu run` has running there.")] = False,
    wait: Wait = True,
    move_anyway: Annotated[
        bool, typer.Option("--move-anyway", help="Move a notebook back, even if some variables stay behind.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Give the GPU back: notebooks are saved and moved back first.

    \b
    gpu off
    gpu off --now             also end programs that run there
    gpu off train.ipynb       only this notebook
    """
    screen, server = Screen.here(as_json=as_json), _server()
    before = server.status()
    if notebook is not None:
        _move(screen, server, open_notebook(server, before, notebook), "server", None, wait, move_anyway)
        return
    if before.get("lease") is None:
        screen.say("There is no GPU to release.")
        if as_json:
            screen.data({"lease": None, "moved": []})
        return
    asked_at = datetime.now(UTC)
    lease = server.call("DELETE", "lease")
    for command in before.get("commands", []):
        if at_once:
            _hang_up(server, command["id"])
        else:
            until = texts.clock((lease.get("ending") or {}).get("deadline"), now())
            screen.note(f"{command['command']} may go on until {until}; `gpu off --now` ends it.")
    moved = until_released(server, screen, {**lease, "asked_at": asked_at}) if wait else []
    if as_json:
        screen.data({"lease": lease, "moved": moved})
    else:
        screen.say("Released." if wait else "The GPU is being released.")


def _hang_up(server: Server, command_id: str) -> None:
    try:
        server.call("DELETE", f"commands/{command_id}")
    except errors.NotFound:
        return  # it has ended meanwhile


def _move(
    screen: Screen,
    server: Server,
    kernel: dict[str, Any],
    placement: str,
    pool: str | None,
    wait: bool,
    anyway: bool,
) -> None:
    wish = {"placement": placement, "left": "accept" if anyway else "refuse", "pool": pool}
    kernel = server.call("PUT", f"kernels/{kernel['id']}/placement", wish)
    if wait:
        kernel = until_moved(server, screen, kernel["id"])
    move = kernel.get("move") or {}
    if wait and kernel["placement"] != placement:
        code = codes.CANCELLED if move.get("step") == "cancelled" else codes.ERROR
        hint = "Move it anyway with --move-anyway." if move.get("step") == "refused" else ""
        behind = texts.verdict_lines(move.get("verdicts", []))
        if not screen.as_json:
            for line in behind:
                screen.say(f"  {line}")
        error = {"code": move.get("error") or move.get("step") or "internal", "hint": hint}
        raise Refused(code, {**error, "message": move.get("message", "It did not move."), "details": move})
    if screen.as_json:
        screen.data(kernel)
        return
    where = "the GPU" if placement == "worker" else "the server"
    verb = "runs on" if wait else "is asked to move to"
    screen.say(f"{kernel.get('notebook')} {verb} {where}.")
    for line in texts.verdict_lines(kernel.get("last_verdict", [])) if wait else []:
        screen.say(f"  stayed behind: {line}")


@app.command()
@_answers
def keep(as_json: Json = False) -> None:
    """Answer the warning before an idle GPU is taken back: I am still here.

    \b
    gpu keep
    """
    screen, server = Screen.here(as_json=as_json), _server()
    warning = (server.status().get("lease") or {}).get("warning")
    lease = server.call("POST", "lease/keep")
    if as_json:
        screen.data(lease)
    elif warning is None:
        screen.say("Kept.")
    else:
        left = warning["keep"]["times_left"] - 1
        times = {0: "This was the last time", 1: "Once more is possible"}.get(
            left, f"{left} more are possible"
        )
        screen.say(f"Kept for {warning['keep']['minutes']} min. {times}.")


PASS_ON = {"allow_interspersed_args": False, "ignore_unknown_options": False}


@app.command(context_settings=PASS_ON)
@_answers
def run(
    command: Annotated[list[str], typer.Argument(metavar="CMD...", help="The program and its arguments.")],
    pool: PoolOption = None,
    gpus: Gpus = 1,
    keep: Keep = False,
    terminal: Annotated[
        bool | None,
        typer.Option("--terminal/--no-terminal", help="Give it a terminal; by default where you sit at one."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a program on the GPU, as if it ran here.

    Without a GPU it asks for one, waits in line, and gives it back afterwards. Ctrl-C reaches the
    program; if it does not answer, a second one ends it and a third one kills it.

    \b
    gpu run python train.py --epochs 3
    gpu run nvidia-smi
    gpu run --keep sh -c 'python train.py > train.log 2>&1'
    """
    from gpusession.shell.running import Order, on_terminal

    given = on_terminal() if terminal is None else terminal
    _run(Order(command, pool, gpus, keep, given), as_json)


@app.command()
@_answers
def shell(pool: PoolOption = None, gpus: Gpus = 1, keep: Keep = False, as_json: Json = False) -> None:
    """Open a shell on the GPU; `exit` leaves it.

    \b
    gpu shell
    """
    from gpusession.shell.running import Order

    argv = [os.environ.get("SHELL") or "/bin/sh"]
    _run(Order(argv, pool, gpus, keep, terminal=sys.stdin.isatty(), insist=False), as_json)


def _run(order: Any, as_json: bool) -> None:
    from gpusession.shell.running import Run as Running

    screen = Screen.here(as_json=as_json)
    try:
        sock = _server().command()
    except errors.GpuhubError as error:
        if as_json:
            print(json.dumps({"error": error.as_dict(), "exit": codes.RUN_FAILED}), file=sys.stderr)
        else:
            screen.error(error.message, error.hint)
        raise typer.Exit(codes.RUN_FAILED) from None
    running = Running(sock, order, screen, os.environ)
    code = running.run()
    if as_json:
        # The program's own output is on stdout: what became of it goes to the other one.
        print(json.dumps({"exit": code, **running.outcome}), file=sys.stderr)
    raise typer.Exit(code)


@app.command()
@_answers
def top(as_json: Json = False) -> None:
    """Watch this server's GPU; Ctrl-C ends it.

    \b
    gpu top
    gpu top --json | head -1          one JSON document a line, at each change
    """
    from gpusession.shell.watching import watch

    watch(_server(), Screen.here(as_json=as_json))


@app.command()
@_answers
def queue(as_json: Json = False) -> None:
    """Show which GPUs there are, how many wait, and where you stand.

    \b
    gpu queue
    """
    screen, found = Screen.here(as_json=as_json), _server().status()
    lease = found.get("lease")
    if as_json:
        screen.data({"pools": found["pools"], "quotas": found["quotas"], "lease": lease})
        return
    lines = [("pool", texts.pool_line(pool)) for pool in found["pools"]]
    if lease is not None and lease["state"] in ("queued", "starting"):
        lines.append(("you", texts.waiting_line(lease, now())))
    elif lease is not None:
        lines.append(("you", f"{texts.gpu_name(lease, found['pools'])} is yours."))
    lines += [("limit", texts.quota_line(quota, now())) for quota in found["quotas"]]
    if not found["pools"]:
        lines.append(("note", "No GPU is on offer here at the moment."))
    screen.labelled(lines)


@app.command()
@_answers
def history(
    number: Annotated[int, typer.Option("--number", "-n", min=1, max=500, help="How many.")] = 20,
    as_json: Json = False,
) -> None:
    """Show the GPUs that you had, newest first.

    \b
    gpu history -n 5
    """
    screen, server = Screen.here(as_json=as_json), _server()
    leases: list[dict[str, Any]] = []
    before: str | None = ""
    while before is not None and len(leases) < number:
        page = server.call("GET", f"history?before={before}" if before else "history")
        leases += page["leases"]
        before = page.get("next")
    leases = leases[:number]
    if as_json:
        screen.data({"leases": leases})
    elif leases:
        rows = [texts.ended_line(lease, now()) for lease in leases]
        screen.table(["asked", "pool", "GPUs", "held", "ended", "lease"], rows, flexible=5)
    else:
        screen.say("You have had no GPU yet.")


@app.command()
@_answers
def restore(
    snapshot: Annotated[
        str | None, typer.Argument(help="A saved state (its id or the beginning of it), or a notebook.")
    ] = None,
    names: Annotated[list[str] | None, typer.Argument(help="Only these variables.")] = None,
    notebook: Annotated[str | None, typer.Option("--notebook", help="Into this open notebook.")] = None,
    as_json: Json = False,
) -> None:
    """List saved states, or load one into its open notebook.

    \b
    gpu restore                         list them
    gpu restore train.ipynb             the newest one of this notebook
    gpu restore 20260714-1402 model df  only two variables of this one
    """
    screen, server = Screen.here(as_json=as_json), _server()
    saved = server.call("GET", "snapshots")["snapshots"]
    if snapshot is None:
        if as_json:
            screen.data({"snapshots": saved})
        elif saved:
            rows = [texts.snapshot_row(one, now()) for one in saved]
            screen.table(["saved state", "notebook", "when", "why", "size", "variables"], rows, flexible=1)
        else:
            screen.say("Nothing is saved yet.")
        return
    chosen = _choose(saved, snapshot)
    kernel = open_notebook(server, server.status(), notebook or chosen.get("notebook") or "")
    wish = {"snapshot": chosen["id"], "names": names or None}
    result = server.call("POST", f"kernels/{kernel['id']}/restore", wish)
    if as_json:
        screen.data(result)
        return
    kept = sum(one["verdict"] != "left" for one in result["verdicts"])
    what = "1 variable" if kept == 1 else f"{kept} variables"
    screen.say(f"{kernel['notebook']}: {what} restored, as of {texts.clock(chosen['created_at'], now())}.")
    for line in texts.verdict_lines(result["verdicts"]):
        screen.say(f"  not restored: {line}")


def _choose(saved: list[dict[str, Any]], wanted: str) -> dict[str, Any]:
    exact = [one for one in saved if one["id"] == wanted]
    begin = [one for one in saved if one["id"].startswith(wanted)]
    name = wanted.removeprefix("./")
    of_notebook = [one for one in saved if (one.get("notebook") or "").split("/")[-1] == name.split("/")[-1]]
    if exact or len(begin) == 1:
        return (exact or begin)[0]
    if begin:
        raise errors.BadRequest(
            f"More than one saved state begins with {wanted}.", hint="Say more of its id."
        )
    usable = [one for one in of_notebook if one["complete"]]
    if usable:
        return usable[0]  # newest first
    raise errors.NotFound(f"No saved state is called {wanted}.", hint="`gpu restore` lists them.")


def main() -> None:
    """The entry point of ``gpu``."""
    app(prog_name="gpu")
