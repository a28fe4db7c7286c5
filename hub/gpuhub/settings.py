"""What the hub is told: one JSON file, named by the environment variable below.

Written by `gpuhub up` for one machine (`local`, mode 0600) or by a chart for a cluster (`kubernetes`, a
ConfigMap, with every secret ``x`` as ``x_file``). Below `config`, `culling` and `up`, which do not know
each other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from gpuhub.secretfiles import SecretFiles
from gpuspawner.images import SIZES, Size

SETTINGS_VARIABLE = "GPUHUB_HUB_SETTINGS"
CULLER_VARIABLE = "GPUHUB_CULLER_SETTINGS"

Hex32 = Annotated[str, StringConstraints(pattern=r"^([0-9a-fA-F]{64})?$")]


class Auth(SecretFiles):
    """How people sign in."""

    model_config = ConfigDict(populate_by_name=True)

    kind: str = Field(
        "shared-password",
        alias="class",
        description="shared-password; pam (one machine); or an authenticator of JupyterHub, by its short "
        "name (generic-oauth, …) or class path.",
    )
    password: str = Field("", repr=False, description="shared-password: everybody's.")
    admin_password: str = Field("", repr=False, description="shared-password: the admins', 32 characters.")
    settings: dict[str, Any] = Field(
        default_factory=dict,
        description="The authenticator's own settings: for generic-oauth client_id, token_url, allow_all, …",
    )
    settings_files: dict[str, Path] = Field(
        default_factory=dict, description="Settings that are secret: name, and the file that holds it."
    )


class LocalHub(BaseModel):
    """Servers are processes of this machine."""

    model_config = ConfigDict(extra="forbid")

    data: Path = Field(description="The data folder: homes, environments, accounts.")
    launcher_socket: Path
    runtime: Path = Field(description="Folder of the launcher's units.")
    account_mode: Literal["shared", "pam", "numbered"]
    shared_uid: int = -1
    allow_root: bool = False
    own_prefix: Path = Field(description="The Python prefix that gpuhub runs in.")
    code_server: str = Field("", description="The code-server command; empty: VS Code is not offered.")


class Home(BaseModel):
    """The claim that holds a person's home, made at the first start and never deleted by us."""

    model_config = ConfigDict(extra="forbid")

    mount_path: str = Field("/home/jovyan", pattern=r"^/\S+$")
    capacity: str = Field(
        "10Gi", description="Size of a new home. Larger later is the storage class's matter."
    )
    access_mode: Literal["ReadWriteMany", "ReadWriteOnce"] = Field(
        "ReadWriteMany",
        description="ReadWriteOnce ties a worker to its server's machine, and both to one with GPUs.",
    )
    class_name: str | None = Field(None, description="Storage class; none: the cluster's default.")
    labels: dict[str, str] = Field(default_factory=dict)


class UserNamespaces(BaseModel):
    """A namespace per person, made by the hub at the first start, and walled before anything is in it."""

    model_config = ConfigDict(extra="forbid")

    template: str = Field(
        "gpuhub-user-{username}",
        pattern=r"^[a-z0-9][a-z0-9-]{0,14}\{username\}$",
        description="{username} is a safe form of the name, 48 characters at most. The beginning before it "
        "keeps a person's namespace from being one that exists for something else.",
    )
    hub: str = Field(
        min_length=1,
        max_length=63,
        description="Value of the label gpuhub.io/hub that each gets: the broker's namespace. Broker and "
        "admission rules know by it whose a namespace is.",
    )
    walls_file: Path = Field(description="What is put into each (gpuspawner.walls).")
    pod_security: Literal["restricted", "baseline", ""] = Field(
        "restricted", description="Pod Security level that the cluster enforces in each; empty: no label."
    )
    labels: dict[str, str] = Field(default_factory=dict, description="Beside those that gpuhub sets.")
    annotations: dict[str, str] = Field(default_factory=dict)


class KubernetesHub(BaseModel):
    """Servers are pods of a cluster."""

    model_config = ConfigDict(extra="forbid")

    namespace: str = Field("", description="Where servers go. With user_namespaces it counts for nothing.")
    user_namespaces: UserNamespaces | None = None
    environments_file: Path = Field(description="The list of environments (gpuspawner.images).")
    sizes: list[Size] = Field(default=list(SIZES), description="Sizes on offer; [] leaves servers without.")
    home: Home = Field(default_factory=Home)
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: list[str] = Field(default_factory=list)
    priority_class: str = ""
    scheduler: str = ""
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: list[dict[str, Any]] = Field(default_factory=list)
    labels: dict[str, str] = Field(default_factory=dict, description="For every server.")
    annotations: dict[str, str] = Field(default_factory=dict, description="For every server.")
    environment: dict[str, str] = Field(default_factory=dict, description="Variables of every server.")
    uid: int = Field(1000, gt=0)
    gid: int = Field(1000, gt=0)
    fs_gid: int = Field(1000, gt=0, description="The group that a new home belongs to.")
    run_bytes: int = Field(64 * 2**20, gt=0, description="See GpuKubeSpawner.run_bytes.")
    services: bool = Field(
        False,
        description="A Service for each server, and traffic by its name: a mesh (Istio) wants that. It "
        "costs two objects at each start, and the hub's right to make them.",
    )

    @model_validator(mode="after")
    def _somewhere(self) -> KubernetesHub:
        if not self.namespace and self.user_namespaces is None:
            raise ValueError("say where servers go: namespace, or user_namespaces")
        return self


class HubSettings(SecretFiles):
    """Everything that `gpuhub.config.apply` needs, with exactly one of `local` and `kubernetes`."""

    bind_url: str = Field(description="What the proxy listens on, with the base path: http://0.0.0.0:8000/")
    public_url: str = Field("", description="What people type, where it is known: https://hub.example.org/")
    hub_bind_url: str = Field(description="What the hub listens on: http://127.0.0.1:8081")
    hub_connect_url: str = Field("", description="How servers and proxy reach it, where that is different.")
    database_url: str = Field(repr=False, description="sqlite:////path/file or postgresql+psycopg://…")
    cookie_secret: Hex32 = Field(repr=False, description="Hex, 32 bytes.")
    auth_state_key: Hex32 = Field(
        "", repr=False, description="Hex, 32 bytes: encrypts what a sign-in brings; empty: nothing is kept."
    )
    proxy_api_url: str
    proxy_token: str = Field(repr=False)
    broker_url: str = Field(description="The broker, before /services/gpu: http://127.0.0.1:PORT")
    broker_token: str = Field(repr=False)
    culler_token: str = Field(repr=False)
    admin_token: str = Field(repr=False)
    auth: Auth = Field(default_factory=Auth)  # type: ignore[arg-type]
    admins: list[str] = Field(default_factory=list)
    fence_seconds: int = Field(60, gt=0, description="How long a cut-off worker goes on.")
    save_seconds: float = Field(180.0, ge=1, description="A server's time to save at its stop, at least.")
    start_seconds: int = Field(
        120,
        ge=10,
        description="Time for a server's start. On a cluster fetching an image and waiting for room are part "
        "of it: more waits longer, less tells sooner.",
    )
    extra_config: Path | None = Field(None, description="The operator's own file; it has the last word.")
    local: LocalHub | None = None
    kubernetes: KubernetesHub | None = None

    @model_validator(mode="after")
    def _one_place(self) -> HubSettings:
        if (self.local is None) == (self.kubernetes is None):
            raise ValueError("say where servers run: exactly one of local and kubernetes")
        return self


class CullerSettings(SecretFiles):
    """What the culler is told, a process of its own."""

    hub_api_url: str = Field(description="The hub's API, with the base path: http://hub:8081/hub/api")
    proxy_url: str = Field(description="The proxy's public side, before the base path.")
    api_token: str = Field("", repr=False, description="Empty: JUPYTERHUB_API_TOKEN of the environment.")
    after_seconds: int = Field(3600, gt=0, description="A server that nobody used for this long is stopped.")
    every_seconds: int = Field(300, gt=0, description="How often it looks.")
    max_age_seconds: int = Field(0, ge=0, description="Stopped after this long, used or not; 0: never.")
