"""The `gpuhub` command: start it, check the machine, keep the list of environments.

Exit codes: 0 fine, 1 something failed, 2 refused with a sentence (options, folders, ports).
"""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(
    help="gpuhub: GPUs for many people, held only while they are used.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
env_app = typer.Typer(help="Environments: Python prefixes that people can choose.", no_args_is_help=True)
app.add_typer(env_app, name="env")

Data = Annotated[Path, typer.Option("--data", help="Data folder: databases, homes, secrets, logs.")]
DEFAULT_DATA = Path(".gpuhub")


@app.command()
def up(
    address: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    data: Data = DEFAULT_DATA,
    gpus: Annotated[
        str, typer.Option(help="auto (real ones, else 2 simulated), none, or sim:N for N simulated ones.")
    ] = "auto",
    auth: Annotated[
        str, typer.Option(help="shared-password, pam, or any JupyterHub authenticator by name or class.")
    ] = "shared-password",
    admin: Annotated[
        list[str] | None, typer.Option(help="Name of an administrator. Can be repeated.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="More JupyterHub configuration (Python), read last.")
    ] = None,
    policy: Annotated[Path | None, typer.Option(help="Policy file (YAML); default DATA/policy.yaml.")] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Written (JSON, 0600) when everything answers; removed at the end.")
    ] = None,
    run_as: Annotated[
        str | None,
        typer.Option(help="As root: the account for hub, proxy and broker. The launcher stays root."),
    ] = None,
    cull_after: Annotated[
        int,
        typer.Option(
            help="Seconds after which a server that nobody uses is stopped (saved first); 0: never. "
            "An hour, because a server is cheap; less frees memory sooner."
        ),
    ] = 3600,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show every line of every part.")] = False,
) -> None:
    """Start everything on this machine, in the foreground. Ctrl-C saves and stops."""
    from gpuhub.up.options import EXIT_REFUSED, UpFailed, UpOptions, UpRefused
    from gpuhub.up.run import run

    try:
        options = UpOptions(
            data=data.expanduser().resolve(),
            address=address,
            port=port,
            gpus=gpus,
            auth=auth,
            admins=tuple(admin or ()),
            config=_absolute(config),
            policy=_absolute(policy),
            ready_file=_absolute(ready_file),
            run_as=run_as,
            cull_after_seconds=cull_after,
            verbose=verbose,
        )
        code = run(options)
    except UpRefused as refused:
        typer.echo(f"gpuhub: {refused}", err=True)
        raise typer.Exit(EXIT_REFUSED) from None
    except UpFailed as failed:
        typer.echo(f"gpuhub: {failed}", err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(code)


@app.command()
def doctor(data: Data = DEFAULT_DATA) -> None:
    """Say what is missing on this machine, and how to get it."""
    from gpuhub.doctor import examine

    findings = examine(data.expanduser().resolve())
    marks = {"ok": "[green]ok[/]", "optional": "[yellow]optional[/]", "missing": "[red]missing[/]"}
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        table.add_row(marks[finding.state], finding.name, finding.text)
    Console().print(table)
    raise typer.Exit(1 if any(finding.state == "missing" for finding in findings) else 0)


@app.command()
def policy(
    file: Annotated[Path | None, typer.Argument(help="A policy file to check; none: only explain.")] = None,
) -> None:
    """Explain every setting of a policy file, with its default; check FILE if one is named."""
    from gpuhub.broker.settings import describe_policy, load_policy

    for name, default, text in describe_policy():
        typer.echo(f"{name}: {default}")
        typer.echo(fill(text, 96, initial_indent="    ", subsequent_indent="    "))
    if file is None:
        return
    try:
        load_policy(file)
    except (OSError, ValueError) as error:
        typer.echo(f"gpuhub: the policy file {file} cannot be used: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(f"{file} can be used.")


@app.command()
def trial(
    url: Annotated[str, typer.Option(help="Where people open gpuhub: http://127.0.0.1:8000/")],
    user: Annotated[str, typer.Option(help="The account that makes the journey.")] = "gpuhub-trial",
    password_file: Annotated[
        Path | None, typer.Option(help="File with its password, for the sign-in form.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with a token of it, where people sign in elsewhere.")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Environment to start; none: the default one.")] = None,
    gpu: Annotated[bool, typer.Option(help="Whether to move the kernel onto a GPU and back.")] = True,
    patience: Annotated[
        float,
        typer.Option(min=1, help="Seconds that one step may take. Raise it where people wait in line."),
    ] = 600.0,
) -> None:
    """Walk one person's whole journey at URL: sign in, notebook, GPU, back, stop. For operators."""
    from gpuhub.trial import TrialFailed, TrialOptions, read_secret, run

    if (password_file is None) == (token_file is None):
        typer.echo("gpuhub: give either --password-file or --token-file.", err=True)
        raise typer.Exit(2)
    try:
        options = TrialOptions(
            url=url,
            user=user,
            password="" if password_file is None else read_secret(password_file),
            token="" if token_file is None else read_secret(token_file),
            profile=profile,
            gpu=gpu,
            patience_seconds=patience,
        )
    except (OSError, UnicodeError) as error:
        typer.echo(f"gpuhub: the file with the password or token cannot be read: {error}", err=True)
        raise typer.Exit(2) from None
    try:
        run(options, typer.echo)
    except TrialFailed as failed:
        typer.echo(f"FAILED  {failed}", err=True)
        if failed.hint:
            typer.echo(f"        {failed.hint}", err=True)
        raise typer.Exit(1) from None


@app.command()
def version() -> None:
    """Print the version."""
    from gpulease import __version__

    typer.echo(__version__)


@env_app.command("list")
def env_list(data: Data = DEFAULT_DATA) -> None:
    """Show the environments and the recipes that can be built."""
    from gpuhub import env

    with _refusals():
        for line in env.describe(data.expanduser().resolve()):
            typer.echo(line)


@env_app.command("add")
def env_add(
    name: str,
    prefix: Path,
    title: Annotated[str | None, typer.Option(help="What people read on the card.")] = None,
    description: Annotated[str, typer.Option(help="One line below the title.")] = "",
    group: Annotated[
        list[str] | None, typer.Option(help="Hub group that may use it; none: everybody.")
    ] = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Offer the Python prefix PREFIX (a venv or conda environment) under NAME."""
    from gpuhub import env

    with _refusals():
        env.add(data.expanduser().resolve(), name, prefix, title, description, tuple(group or ()))
    typer.echo(f"{name} is on offer: {prefix}")


@env_app.command("build")
def env_build(name: str, data: Data = DEFAULT_DATA) -> None:
    """Make the environment NAME from its recipe (see `gpuhub env list`), with visible progress."""
    from gpuhub import env

    with _refusals():
        env.build(data.expanduser().resolve(), name, typer.echo)
    typer.echo(f"{name} is on offer.")


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.expanduser().absolute()


class _refusals:
    """Turn an `EnvironmentRefused` into one sentence and exit code 2."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from gpuhub.env import EnvironmentRefused

        if isinstance(error, EnvironmentRefused):
            typer.echo(f"gpuhub: {error}", err=True)
            raise typer.Exit(2) from None


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
