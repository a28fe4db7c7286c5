"""What starts servers: GpuLocalSpawner on one machine, GpuKubeSpawner on a cluster."""

from __future__ import annotations

from typing import Any

from gpuhub.settings import HubSettings, KubernetesHub, LocalHub, UserNamespaces
from gpulease.scopes import SERVICE_NAME
from gpuspawner.walls import HUB_LABEL

HTTP_SECONDS = 120
LOCAL, KUBERNETES = "gpuspawner.local.GpuLocalSpawner", "gpuspawner.kube.GpuKubeSpawner"


def apply(c: Any, settings: HubSettings) -> None:
    """Set the spawner and everything it needs."""
    if settings.local is not None:
        spawner = c.GpuLocalSpawner
        c.JupyterHub.spawner_class = LOCAL
        _local(spawner, settings.local)
    else:
        assert settings.kubernetes is not None  # HubSettings has exactly one
        spawner = c.GpuKubeSpawner
        c.JupyterHub.spawner_class = KUBERNETES
        _kubernetes(spawner, settings.kubernetes)
    session(spawner, settings.broker_url, settings.fence_seconds, settings.save_seconds)
    spawner.start_timeout = settings.start_seconds
    spawner.http_timeout = HTTP_SECONDS
    spawner.poll_interval = 5 if settings.local is not None else 15


def session(spawner: Any, broker_url: str, fence_seconds: int, save_seconds: float) -> None:
    """Set what the session in every server must know."""
    spawner.broker_url = f"{broker_url}/services/{SERVICE_NAME}"
    spawner.fence_seconds = fence_seconds
    spawner.save_seconds = save_seconds


def _local(spawner: Any, local: LocalHub) -> None:
    spawner.launcher_socket = str(local.launcher_socket)
    spawner.runtime_dir = str(local.runtime)
    spawner.account_mode = local.account_mode
    spawner.shared_uid = local.shared_uid
    spawner.homes_dir = str(local.data / "homes")
    spawner.accounts_book = str(local.data / "accounts.json")
    spawner.environments_file = str(local.data / "environments.yaml")
    spawner.own_prefix = str(local.own_prefix)
    spawner.code_server = local.code_server
    spawner.allow_root = local.allow_root
    # Nothing of the hub's own environment reaches a server but how dates and texts look.
    spawner.env_keep = ["LANG", "LC_ALL", "TZ"]


def _kubernetes(spawner: Any, kubernetes: KubernetesHub) -> None:
    home = kubernetes.home
    if kubernetes.namespace:
        spawner.namespace = kubernetes.namespace
    if kubernetes.user_namespaces is not None:
        spawner.enable_user_namespaces = True
        spawner.user_namespace_template = kubernetes.user_namespaces.template
        spawner.user_namespace_labels = namespace_labels(kubernetes.user_namespaces)
        spawner.user_namespace_annotations = kubernetes.user_namespaces.annotations
        spawner.walls_file = str(kubernetes.user_namespaces.walls_file)
    choices(spawner, kubernetes)
    spawner.home_path = home.mount_path
    spawner.run_bytes = kubernetes.run_bytes
    # One home per person, whatever the name of the server.
    spawner.pvc_name_template = "claim-{username}"
    spawner.storage_pvc_ensure = True
    spawner.storage_capacity = home.capacity
    spawner.storage_access_modes = [home.access_mode]
    spawner.storage_class = home.class_name
    spawner.storage_extra_labels = {"app.kubernetes.io/part-of": "gpuhub"} | home.labels
    spawner.volumes = {"home": {"name": "home", "persistentVolumeClaim": {"claimName": "{pvc_name}"}}}
    spawner.volume_mounts = {"home": {"name": "home", "mountPath": home.mount_path}}
    spawner.image_pull_policy = kubernetes.image_pull_policy
    spawner.image_pull_secrets = list(kubernetes.image_pull_secrets)
    spawner.priority_class_name = kubernetes.priority_class
    spawner.scheduler_name = kubernetes.scheduler or None
    spawner.node_selector = dict(kubernetes.node_selector)
    spawner.tolerations = [dict(one) for one in kubernetes.tolerations]
    spawner.extra_labels = dict(kubernetes.labels)
    spawner.extra_annotations = dict(kubernetes.annotations)
    spawner.environment = dict(kubernetes.environment)
    spawner.services_enabled = kubernetes.services
    _restricted(spawner, kubernetes)


def namespace_labels(own: UserNamespaces) -> dict[str, str]:
    """Return the labels of a person's namespace: whose it is, and what the cluster refuses in it."""
    level = own.pod_security
    return {
        **own.labels,
        "gpuhub.io/users": "true",
        HUB_LABEL: own.hub,
        "app.kubernetes.io/part-of": "gpuhub",
        **({f"pod-security.kubernetes.io/{mode}": level for mode in ("enforce", "warn")} if level else {}),
    }


def choices(spawner: Any, kubernetes: Any) -> None:
    """Set what is on offer."""
    spawner.environments_file = str(kubernetes.environments_file)
    spawner.sizes = [size.model_dump() for size in kubernetes.sizes]


def _restricted(spawner: Any, kubernetes: KubernetesHub) -> None:
    """What the Pod Security level ``restricted`` asks for."""
    spawner.uid, spawner.gid, spawner.fs_gid = kubernetes.uid, kubernetes.gid, kubernetes.fs_gid
    spawner.automount_service_account_token = False
    spawner.allow_privilege_escalation = False
    spawner.pod_security_context = {
        "runAsNonRoot": True,
        # A large home is not walked through at every start.
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    spawner.container_security_context = {
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
