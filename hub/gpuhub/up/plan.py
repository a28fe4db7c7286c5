"""From options to orders: which files are written for each child, and how it is run.

Everything a child must know is in a file of the data folder (0600) or its environment; nothing secret
is on a command line, where every account of the machine could read it.
"""

from __future__ import annotations

import json
import os
import pwd
import sys
from dataclasses import dataclass
from pathlib import Path

from gpuhub.programs import ProgramMissing, find_code_server, find_proxy, repository
from gpuhub.settings import CULLER_VARIABLE, SETTINGS_VARIABLE, Auth, CullerSettings, HubSettings, LocalHub
from gpuhub.telemetry.inventory import Inventory
from gpuhub.up.children import ChildOrder
from gpuhub.up.folders import DataFolder
from gpuhub.up.options import UpOptions, UpRefused
from gpuhub.up.people import People, ServiceAccount
from gpuhub.up.ports import INNER, Ports
from gpuhub.up.secrets import Secrets
from gpuspawner.launcher.accounts import AccountPolicy
from gpuspawner.launcher.settings import LauncherSettings

KEPT_VARIABLES = ("LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "TMPDIR")
HUB_CONFIG = (
    '"""JupyterHub\'s configuration for gpuhub."""\n\n'
    "from gpuhub.config import apply\n\n"
    "apply(get_config())  # noqa: F821\n"
)
CULLER_CONFIG = (
    '"""The idle culler\'s configuration for gpuhub."""\n\n'
    "from gpuhub.culling import apply\n\n"
    "apply(get_config())  # noqa: F821\n"
)


@dataclass(frozen=True)
class Plan:
    """What was decided, before anything runs."""

    options: UpOptions
    data: DataFolder
    runtime: Path
    ports: Ports
    secrets: Secrets
    service: ServiceAccount
    people: People
    inventory: Inventory

    @property
    def url(self) -> str:
        """Where people go."""
        address = self.options.address
        if address in ("0.0.0.0", "::", ""):
            address = os.uname().nodename
        elif ":" in address:
            address = f"[{address}]"
        return f"http://{address}:{self.ports.public}/"

    @property
    def inner_url(self) -> str:
        """The proxy's public side, as this machine reaches it."""
        address = self.options.address
        if address in ("0.0.0.0", "::", ""):
            address = INNER
        return f"http://{f'[{address}]' if ':' in address else address}:{self.ports.public}/"

    @property
    def proxy_api(self) -> str:
        return f"http://{INNER}:{self.ports.proxy_api}"

    @property
    def hub_api(self) -> str:
        return f"http://{INNER}:{self.ports.hub}/hub/api"

    @property
    def broker_url(self) -> str:
        return f"http://{INNER}:{self.ports.broker}"

    @property
    def launcher_socket(self) -> Path:
        return self.runtime / "launcher.sock"


def orders(plan: Plan) -> dict[str, ChildOrder]:
    """Write every child's settings and return the orders, in the order of their start."""
    return {
        order.name: order
        for order in (_launcher(plan), _proxy(plan), _broker(plan), _hub(plan), _culler(plan))
    }


def _launcher(plan: Plan) -> ChildOrder:
    data, people = plan.data.path, plan.people
    root = os.geteuid() == 0
    settings = LauncherSettings(
        socket=plan.launcher_socket,
        runtime=plan.runtime,
        state=data / "launcher",
        allowed_uids=[plan.service.uid],
        accounts=AccountPolicy.model_validate(
            {
                "mode": people.mode,
                "homes": data / "homes",
                "shared_uid": people.shared_uid,
                "allow_shared_root": root and people.mode == "shared" and (people.shared_uid or 0) == 0,
            }
        ),
        prefixes=[Path(sys.prefix)],
        prefixes_file=data / "environments.yaml",
        devices={name: [Path(f) for f in files] for name, files in plan.inventory.device_files().items()},
        shared_devices=[Path(file) for file in plan.inventory.shared_files],
        restrict_devices=root and people.mode != "shared",
    )
    file = plan.data.write("run/launcher.json", settings.model_dump_json(indent=1), root_only=True)
    command = (sys.executable, "-P", "-m", "gpuspawner.launcher", "--settings", str(file))
    return ChildOrder("launcher", command, _env(plan, service=False), Path("/"))


def _proxy(plan: Plan) -> ChildOrder:
    try:
        proxy = find_proxy()
    except ProgramMissing as missing:
        raise UpRefused(missing.message, missing.hint) from None
    command = (
        *proxy,
        *("--ip", plan.options.address, "--port", str(plan.ports.public)),
        *("--api-ip", INNER, "--api-port", str(plan.ports.proxy_api)),
        *("--error-target", f"http://{INNER}:{plan.ports.hub}/hub/error"),
    )
    env = _env(plan) | {"CONFIGPROXY_AUTH_TOKEN": plan.secrets.proxy_token}
    return _child(plan, "proxy", command, env)


def _broker(plan: Plan) -> ChildOrder:
    from gpuhub.broker.site import BrokerSettings

    data, people = plan.data.path, plan.people
    settings = BrokerSettings.model_validate(
        {
            "host": INNER,
            "port": plan.ports.broker,
            "hub_api_url": plan.hub_api,
            "hub_api_token": plan.secrets.broker_token,
            "database_url": f"sqlite+aiosqlite:///{data}/gpuhub.sqlite",
            "policy_file": policy_file(plan.options, data),
            "local": {
                "gpus": plan.options.gpus,
                "launcher_socket": plan.launcher_socket,
                "account_mode": people.mode,
                "homes": data / "homes",
                "accounts_book": data / "accounts.json",
                "shared_uid": people.shared_uid,
                "prefix": sys.prefix,
            },
        }
    )
    text = json.dumps(settings.model_dump(mode="json", context={"reveal": True}), indent=1)
    file = plan.data.write("run/broker.json", text)
    return _child(
        plan, "broker", (sys.executable, "-P", "-m", "gpuhub.api", "--settings", str(file)), _env(plan)
    )


def policy_file(options: UpOptions, data: Path) -> Path | None:
    """Return the policy that counts: the one named, else the data folder's, else none."""
    if options.policy is not None:
        return options.policy
    kept = data / "policy.yaml"
    return kept if kept.is_file() else None


def _hub(plan: Plan) -> ChildOrder:
    options, secrets, data = plan.options, plan.secrets, plan.data.path
    settings = HubSettings(
        bind_url=plan.inner_url if options.address != "0.0.0.0" else f"http://0.0.0.0:{plan.ports.public}/",
        hub_bind_url=f"http://{INNER}:{plan.ports.hub}",
        database_url=f"sqlite:///{data}/jupyterhub.sqlite",
        proxy_api_url=plan.proxy_api,
        proxy_token=secrets.proxy_token,
        cookie_secret=secrets.cookie_secret,
        broker_url=plan.broker_url,
        broker_token=secrets.broker_token,
        culler_token=secrets.culler_token,
        admin_token=secrets.admin_token,
        auth=Auth.model_validate(
            {
                "class": options.auth,
                "password": secrets.password,
                "admin_password": secrets.admin_password,
            }
        ),
        admins=list(options.admin_names),
        extra_config=options.config,
        local=LocalHub(
            data=data,
            launcher_socket=plan.launcher_socket,
            runtime=plan.runtime,
            account_mode=plan.people.mode,
            shared_uid=-1 if plan.people.shared_uid is None else plan.people.shared_uid,
            allow_root=plan.people.mode == "shared" and plan.service.uid == 0,
            own_prefix=Path(sys.prefix),
            code_server=find_code_server() or "",
        ),
    )
    file = plan.data.write("run/hub.json", settings.model_dump_json(indent=1, by_alias=True))
    config = repository() / "hub" / "jupyterhub_config.py"
    if not config.is_file():
        config = plan.data.write("run/jupyterhub_config.py", HUB_CONFIG)
    env = _env(plan) | {SETTINGS_VARIABLE: str(file)}
    return _child(plan, "hub", (sys.executable, "-P", "-m", "jupyterhub", "-f", str(config)), env)


def _culler(plan: Plan) -> ChildOrder:
    seconds = plan.options.cull_after_seconds
    settings = CullerSettings(
        hub_api_url=plan.hub_api,
        proxy_url=plan.inner_url,
        api_token=plan.secrets.culler_token,
        after_seconds=max(seconds, 1),
        every_seconds=max(5, min(300, seconds // 4)),
    )
    file = plan.data.write("run/culler.json", settings.model_dump_json(indent=1))
    config = plan.data.write("run/culler_config.py", CULLER_CONFIG)
    command = (sys.executable, "-P", "-m", "jupyterhub_idle_culler", f"--config={config}")
    return _child(plan, "culler", command, _env(plan) | {CULLER_VARIABLE: str(file)})


def _child(plan: Plan, name: str, command: tuple[str, ...], env: dict[str, str]) -> ChildOrder:
    account = None
    if os.geteuid() == 0 and plan.service.uid != 0:
        groups = tuple(os.getgrouplist(plan.service.name, plan.service.gid))
        account = (plan.service.uid, plan.service.gid, groups)
    return ChildOrder(name, command, env, plan.data.path, account)


def _env(plan: Plan, *, service: bool = True) -> dict[str, str]:
    env = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    env["PATH"] = f"{Path(sys.prefix) / 'bin'}:/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
    uid = plan.service.uid if service else os.geteuid()
    try:
        env["HOME"] = pwd.getpwuid(uid).pw_dir
    except KeyError:
        env["HOME"] = str(plan.data.path)
    env["PYTHONUNBUFFERED"] = "1"
    return env
