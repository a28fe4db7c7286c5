"""Decide everything, refuse what cannot be, then hand over to the supervisor."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import datetime
from importlib.metadata import entry_points

from gpuhub.telemetry.sources import Machine
from gpuhub.up.folders import DataFolder, make_runtime_folder, runtime_folder
from gpuhub.up.options import UpOptions, UpRefused
from gpuhub.up.people import ServiceAccount, decide, reach_problem, service_account
from gpuhub.up.plan import Plan, policy_file
from gpuhub.up.ports import choose_ports
from gpuhub.up.readable import Log
from gpuhub.up.secrets import load_or_make
from gpuhub.up.supervisor import Supervisor


def run(options: UpOptions) -> int:
    """Run `gpuhub up` until it is stopped. Raises `UpRefused`."""
    os.umask(0o077)
    check_authenticator(options.auth)
    service = service_account(options)
    data = DataFolder(options.data, service.uid, service.gid)
    data.open()
    try:
        plan = make_plan(options, data)
        log = Log(
            data.path / "logs" / "gpuhub.log",
            now=lambda: datetime.now().astimezone(),
            verbose=options.verbose,
        )
        try:
            return asyncio.run(_supervise(plan, log))
        finally:
            log.close()
    finally:
        data.close()


def make_plan(options: UpOptions, data: DataFolder) -> Plan:
    """Decide ports, accounts, GPUs. Raises `UpRefused`."""
    service = service_account(options)
    _check_policy(options, data)
    _check_service(service, data)
    if os.geteuid() == 0 and options.auth != "pam":
        data.open_to_traversal()
    people = decide(options, service, data.path / "homes")
    if people.mode != "numbered":
        os.chmod(data.path, 0o700)
        os.chmod(data.path / "homes", 0o700)
    runtime = runtime_folder(data.path, service.uid)
    # Hub and broker may run as another account than the launcher; units always may.
    make_runtime_folder(runtime, traversable=os.geteuid() == 0)
    return Plan(
        options=options,
        data=data,
        runtime=runtime,
        ports=choose_ports(data, options.address, options.port),
        secrets=load_or_make(data),
        service=service,
        people=people,
        inventory=Machine(options.gpus).look(),
    )


def check_authenticator(name: str) -> None:
    """Refuse a name that JupyterHub would not know. Raises `UpRefused`."""
    known = {point.name for point in entry_points(group="jupyterhub.authenticators")}
    if name in known or name == "pam":
        return
    module, _, attribute = name.rpartition(".")
    try:
        if module and hasattr(__import__(module, fromlist=[attribute]), attribute):
            return
    except ImportError:
        pass
    raise UpRefused(
        f"There is no authenticator {name}.",
        f"Known by name: {', '.join(sorted(known))}; or give the full name of a class.",
    )


def _check_service(service: ServiceAccount, data: DataFolder) -> None:
    if service.uid == os.geteuid():
        return
    problem = reach_problem(data.path, service.uid)
    if problem is not None:
        raise UpRefused(
            f"--run-as {service.name}: {problem}",
            "Move the data folder (--data), or open the folders above it to passing through (chmod o+x).",
        )


def _check_policy(options: UpOptions, data: DataFolder) -> None:
    path = policy_file(options, data.path)
    if path is None:
        return
    from gpuhub.broker.settings import load_policy

    try:
        load_policy(path)
    except (OSError, ValueError) as error:
        raise UpRefused(f"The policy file {path} cannot be used: {error}") from None


async def _supervise(plan: Plan, log: Log) -> int:
    return await Supervisor(plan, log, lambda text: print(text, file=sys.stdout, flush=True)).run()
