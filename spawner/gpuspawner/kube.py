"""GpuKubeSpawner: servers as pods of a cluster, with gpuhub's choice page, words and promises.

KubeSpawner does the work; this says what a server of gpuhub is, and closes gaps. Promises, beyond those
of `GpuSpawner`:

* A server has no GPU, no rights and no token of the cluster, whatever profiles, settings and hooks say
  (`sealing`); it gets its full time to save at every stop, also when a new one takes its name.
* A start that cannot succeed ends with one sentence as soon as that is known (`starting`), not when the
  time is over; the page is told steps in plain words, never the cluster's own.
* Nothing is concluded from silence: when the cluster does not answer, servers count as running.

Methods that start with an underscore and take KubeSpawner's place say so, and why; a test checks that
KubeSpawner still has them. The file is longer than 300 lines because all that touches KubeSpawner's
insides is kept in one place; what is pure is next door (`choices`, `images`, `sealing`, `starting`).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from jupyterhub.utils import maybe_future
from kubernetes_asyncio.client import V1EmptyDirVolumeSource, V1EnvVar, V1Volume, V1VolumeMount
from kubernetes_asyncio.client.rest import ApiException
from kubespawner import KubeSpawner
from traitlets import Dict, Int, List, Unicode, default

from gpuspawner import choices, images, starting, walls, watching
from gpuspawner.base import ASK_OPERATOR, GpuSpawner
from gpuspawner.language import Sentence, spoken
from gpuspawner.refusals import Refusal
from gpuspawner.sealing import NO_GPU, Unsafe, sealed
from gpuspawner.starting import Look, Trouble

LOOK_SECONDS = 0.5
ANSWER_SECONDS = 2.0
"""For one try to reach a server that has just started."""
STOP_MARGIN_SECONDS = 60.0
"""After a server's time to save: for its machine to say that it is gone."""
EARLY_SECONDS = 3.0
"""Our own end of a start comes before the hub's, which says only that it took too long."""
RIGHTS_SECONDS = 10.0
"""Rights that were just given count a moment later."""
SERVER_LABEL, START_MARK = "gpuhub.io/server", "gpuhub.io/start"
PART_OF = "app.kubernetes.io/part-of"
RUN_VOLUME = "run"

_SILENCE = (aiohttp.ClientError, TimeoutError, asyncio.TimeoutError, OSError)


class ClusterSilent(Exception):
    """The cluster's API did not answer, or not sensibly."""


class GpuKubeSpawner(GpuSpawner, KubeSpawner):  # type: ignore[misc]  # kubespawner is untyped
    """Starts, watches and stops a person's server on a cluster."""

    sizes = List(Dict(), help="Sizes on offer (gpuspawner.images.Size); empty: no choice of a size.").tag(
        config=True
    )
    home_path = Unicode("/home/jovyan", help="Where the home is mounted; servers start there.").tag(
        config=True
    )
    run_path = Unicode("/run/gpuhub", help="Where sockets and keys of the session live, in memory.").tag(
        config=True
    )
    run_bytes = Int(
        64 * 2**20,
        help="Bytes of that folder, taken from the server's memory. Sockets need next to nothing; lower "
        "limits what a runaway log there could take.",
    ).tag(config=True)
    walls_file = Unicode(help="What is put into each person's own namespace (gpuspawner.walls).").tag(
        config=True
    )
    environment_tolerations = List(help="Tolerations of the chosen environment, beside `tolerations`.").tag(
        config=True
    )

    @default("cmd")
    def _cmd(self) -> list[str]:
        # Without one KubeSpawner leaves it to the image and drops the arguments.
        return ["jupyterhub-singleuser"]

    @default("k8s_api_request_timeout")
    def _request_seconds(self) -> int:
        # Of 3 s, KubeSpawner's own, a busy API server with admission rules needs more now and then.
        return 10

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # One number for three things: what the pod is promised, what its end is asked with, and what
        # the session in it plans by.
        self.delete_grace_period = math.ceil(self.save_seconds)
        self._operators_hook: Any = None
        self._step = ("", "")

    # --- what may be chosen

    def raw_profiles(self, groups: set[str]) -> Sequence[Mapping[str, Any]]:
        listed = images.read(Path(self.environments_file))
        return choices.image_profiles(listed, images.read_sizes(list(self.sizes)))

    async def load_user_options(self) -> None:
        """KubeSpawner applies profiles here, unchecked. Ours were judged and applied before."""

    # --- the pod

    @property
    def server_slug(self) -> str:
        """What servers are told apart by in labels: readable where it can be, safe always."""
        return str(self._expand_user_properties("{safe_user_server}"))

    def server_labels(self) -> dict[str, str]:
        """The labels that hub and broker find a server by."""
        return {"component": self.component_label, SERVER_LABEL: self.server_slug, PART_OF: "gpuhub"}

    def get_env(self) -> dict[str, Any]:
        env: dict[str, Any] = super().get_env()
        env.setdefault("JUPYTERHUB_ROOT_DIR", self.home_path)
        env.setdefault("CODE_WORKINGDIR", self.home_path)
        env.update(
            self.session_env(),
            GPUHUB_RUNTIME_DIR=self.run_path,
            XDG_RUNTIME_DIR=self.run_path,
            JUPYTER_RUNTIME_DIR=f"{self.run_path}/jupyter",
        )
        return env

    async def get_pod_manifest(self) -> Any:
        pod = await super().get_pod_manifest()
        pod.metadata.labels.update(self.server_labels())
        pod.metadata.annotations[START_MARK] = self._start_mark()
        pod.spec.enable_service_links = False
        pod.spec.tolerations = [*(pod.spec.tolerations or []), *self.environment_tolerations] or None
        pod.spec.volumes = [
            *(pod.spec.volumes or []),
            V1Volume(
                name=RUN_VOLUME,
                empty_dir=V1EmptyDirVolumeSource(medium="Memory", size_limit=str(self.run_bytes)),
            ),
        ]
        notebook = pod.spec.containers[0]
        notebook.volume_mounts = [
            *(notebook.volume_mounts or []),
            V1VolumeMount(name=RUN_VOLUME, mount_path=self.run_path),
        ]
        # The end of its log, for the details of a start that failed; no right to read logs is needed.
        notebook.termination_message_policy = "FallbackToLogsOnError"
        for container in [*pod.spec.containers, *(pod.spec.init_containers or [])]:
            env = [entry for entry in container.env or [] if entry.name != NO_GPU[0]]
            container.env = [*env, V1EnvVar(name=NO_GPU[0], value=NO_GPU[1])]
        return pod

    async def finish_pod(self, spawner: Any, pod: Any) -> dict[str, Any]:
        """Take the hook's place: the operator's own hook, then the seal. Raises `Refusal`."""
        if self._operators_hook is not None:
            pod = await maybe_future(self._operators_hook(self, pod))
        plain = self.api.api_client.sanitize_for_serialization(pod)
        try:
            return sealed(plain, labels=self.server_labels(), save_seconds=self.save_seconds)
        except Unsafe as unsafe:
            raise Refusal(
                "The chosen environment would give this server rights that no server may have.",
                hint=ASK_OPERATOR,
                reason="unsafe",
                details="\n".join(unsafe.reasons),
                status_code=503,
            ) from unsafe

    # --- JupyterHub's spawner interface

    def start(self) -> asyncio.Future[str]:
        """Start the server and return its address. Raises `Refusal` with one sentence."""
        return asyncio.ensure_future(self._start_in_words())

    async def stop(self, now: bool = False) -> None:
        """Stop the server: it saves first, within `save_seconds` (``now``: not at all).

        KubeSpawner waits for `start_timeout`, which knows nothing of the time to save; this waits for
        that time, asking again in between, which takes nothing away from it.
        """
        deadline = time.monotonic() + STOP_MARGIN_SECONDS + (0 if now else self.delete_grace_period)
        while True:
            try:
                await super().stop(now)
                return
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise

    async def poll(self) -> int | None:
        """KubeSpawner's answer, except that silence is none, and absence is asked about twice.

        It reads its own list alone: one that lags behind would end a server that runs. And the hub takes
        an error in its first look after a restart for a server that is gone.
        """
        try:
            status: int | None = await super().poll()
            if status is None or self._seen() is not None:
                return status
            if await self._found() is None:
                return status
            self.log.warning("%s runs, but is missing from the list; it is read anew", self.pod_name)
            await self._start_watching_pods(replace=True)
        except (ApiException, ClusterSilent, *_SILENCE) as error:
            self.log.warning("The cluster does not answer about %s: %s", self.pod_name, error)
        return None

    # --- a start

    async def _start_in_words(self) -> str:
        self._steps.clear()
        self._step = ("", "")
        if self.modify_pod_hook != self.finish_pod:
            self._operators_hook, self.modify_pod_hook = self.modify_pod_hook, self.finish_pod
        # KubeSpawner 7.1 makes no claim again that it once saw, not even when an operator removed it.
        self._pvc_exists = False
        try:
            await self._clear_away()
            self.say(10, "Preparing your home folder.")
            return await self._followed(super().start())
        except ApiException as error:
            raise self._refusal(starting.refused(error.status, _said(error))) from error
        except (ClusterSilent, *_SILENCE) as error:
            raise self._refusal(starting.refused(None, str(error))) from error

    async def _clear_away(self) -> None:
        """Give what is left of an earlier server its time to save. KubeSpawner would kill it."""
        if await self._found() is None:
            return
        self.say(5, "Making room: your last server is saving its work.")
        try:
            await self.stop()
        except TimeoutError as error:
            raise Refusal(
                "Your last server cannot be ended: its machine does not answer.",
                hint=ASK_OPERATOR,
                reason="unreachable",
                status_code=503,
            ) from error

    async def _followed(self, work: asyncio.Future[str]) -> str:
        """Wait for KubeSpawner's start and for the server's answer; end early where neither can come."""
        deadline = time.monotonic() + self.start_timeout - EARLY_SECONDS
        since: dict[str, float] = {}
        made = False
        try:
            while True:
                pod, now = self._seen(), time.monotonic()
                step = starting.look(pod, self._own_events(pod), self.title())
                if made and pod is None:
                    raise self._refusal(
                        Trouble("Your server was ended while it started.", "Try again.", "ended")
                    )
                made = made or (pod is not None and self._is_this_start(pod))
                if made:
                    self._judge(step, since, now)
                self._tell(step, now - since.setdefault(step.step, now))
                if work.done() and await _answers(work.result()):
                    self.say(85, "Your server is up. Opening it.")
                    return work.result()
                if now > deadline:
                    raise self._refusal(_late(step))
                if work.done():
                    await asyncio.sleep(LOOK_SECONDS)
                else:
                    await asyncio.wait({work}, timeout=LOOK_SECONDS)
        finally:
            work.cancel()

    def _judge(self, step: Look, since: dict[str, float], now: float) -> None:
        """Raise `Refusal` for what cannot end well, or has not for long enough."""
        trouble = step.trouble
        if trouble is None:
            return
        key = f"trouble {trouble.reason}"
        if now - since.setdefault(key, now) >= trouble.after_seconds:
            raise self._refusal(trouble)

    def _tell(self, step: Look, lasted: float) -> None:
        """Say the step, once; a timed one again whenever its time reads differently."""
        lasting = starting.duration(lasted) if step.timed and lasted >= 5 else ""
        if self._step == (step.message, lasting):
            return
        message = step.message
        if lasting:
            without_dot = spoken(message).removesuffix(".")
            message = Sentence("{step} ({time}).", step=without_dot, time=lasting)
        self.say(step.share, message, again=self._step[0] == step.message)
        self._step = (step.message, lasting)

    def _refusal(self, trouble: Trouble) -> Refusal:
        return Refusal(
            trouble.message,
            hint=trouble.hint,
            reason=trouble.reason,
            details=trouble.details,
            status_code=503,
        )

    def _start_mark(self) -> str:
        """Tells this start's pod from another's: the server's token is new at each start."""
        return hashlib.sha256(f"start {self.api_token}".encode()).hexdigest()[:16]

    def _is_this_start(self, pod: Mapping[str, Any]) -> bool:
        annotations = (pod.get("metadata") or {}).get("annotations") or {}
        return bool(annotations.get(START_MARK) == self._start_mark())

    # --- what is seen

    def _seen(self) -> dict[str, Any] | None:
        """The pod in KubeSpawner's list."""
        reflector = self.pod_reflector
        found: dict[str, Any] | None = None
        if reflector is not None:
            found = reflector.pods.get(f"{self.namespace}/{self.pod_name}")
        return found

    async def _found(self) -> dict[str, Any] | None:
        """The pod as the API has it now. A list of one: the hub has no right to ``get``."""
        answer = await asyncio.wait_for(
            self.api.list_namespaced_pod(
                namespace=self.namespace,
                field_selector=f"metadata.name={self.pod_name}",
                _preload_content=False,
            ),
            self.k8s_api_request_timeout,
        )
        text = await answer.text()
        if answer.status != 200:
            raise ApiException(status=answer.status, reason=text)
        items = json.loads(text)["items"]
        return items[0] if items else None

    def _own_events(self, pod: Mapping[str, Any] | None) -> list[dict[str, Any]]:
        """What the cluster said about this very pod, oldest first."""
        reflector = self.event_reflector
        if pod is None or reflector is None:
            return []
        uid = pod["metadata"].get("uid")
        return [event for event in reflector.events if event["involvedObject"].get("uid") == uid]

    # --- in KubeSpawner's place

    async def _start_reflector(
        self, kind: str, reflector_class: Any, replace: bool = False, **kwargs: Any
    ) -> Any:
        """As KubeSpawner's, with lists that do not give up, and without a dead one (see `watching`)."""
        key = self._get_reflector_key(kind)
        running = self.__class__.reflectors.get(key)
        if running is not None and not watching.alive(running):
            self.__class__.reflectors.pop(key, None)
        own = watching.UNTIRING.get(reflector_class, reflector_class)
        try:
            return await super()._start_reflector(kind, own, replace, **kwargs)
        except SystemExit:  # with a namespace per person KubeSpawner ends the hub here
            raise ClusterSilent(f"the list of {kind} could not be read") from None
        except Exception as error:
            if kind == "events":  # they are for words only
                self.log.warning("The cluster's events cannot be read: %s", error)
                return None
            raise

    async def _ensure_namespace(self) -> None:
        """As KubeSpawner's, which takes any namespace of that name and leaves it open to all.

        Ours is one that was made for this hub, and has its walls before anything of a person is in it.
        """
        try:
            around = walls.read(Path(self.walls_file))
        except (OSError, ValueError) as error:
            raise self._refusal(
                Trouble("The place for your server is not set up rightly.", ASK_OPERATOR, "place", str(error))
            ) from error
        await super()._ensure_namespace()
        found = await self._ask("GET", f"/api/v1/namespaces/{self.namespace}")
        ours = self.user_namespace_labels.get(walls.HUB_LABEL)
        if not ours or (found["metadata"].get("labels") or {}).get(walls.HUB_LABEL) != ours:
            raise self._refusal(
                Trouble(
                    "The place for your server in the cluster belongs to something else.",
                    ASK_OPERATOR,
                    "place",
                    f"The namespace {self.namespace} exists without the label {walls.HUB_LABEL}={ours}.",
                )
            )
        deadline = time.monotonic() + RIGHTS_SECONDS
        for wall in around:
            await self._put_up(wall, deadline)

    async def _put_up(self, wall: walls.Wall, deadline: float) -> None:
        """Make an object what it should be, whether it is there or not."""
        while True:
            try:
                await self._ask(
                    "PATCH",
                    wall.path(self.namespace),
                    query=[("fieldManager", "gpuhub-hub"), ("force", "true")],
                    content="application/apply-patch+yaml",
                    body=wall.body(self.namespace),
                )
                return
            except ApiException as error:
                if error.status != 403 or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(LOOK_SECONDS)

    async def _ask(
        self, method: str, path: str, *, content: str = "application/json", **request: Any
    ) -> dict[str, Any]:
        """Ask the API something that KubeSpawner's library has no plain call for. Raises `ApiException`."""
        answer = await asyncio.wait_for(
            self.api.api_client.call_api(
                path,
                method,
                query_params=request.get("query", []),
                header_params={"Accept": "application/json", "Content-Type": content},
                body=request.get("body"),
                auth_settings=["BearerToken"],
                response_types_map={},
                _return_http_data_only=True,
                _preload_content=False,
            ),
            self.k8s_api_request_timeout,
        )
        text = await answer.text()
        if answer.status >= 400:
            error = ApiException(status=answer.status, reason=answer.reason)
            error.body = text
            raise error
        found: dict[str, Any] = json.loads(text)
        return found

    async def _make_create_pod_request(self, pod: Any, request_timeout: float) -> bool:
        """As KubeSpawner's, which logs a refused pod with its token, kills whatever has the pod's name,
        and takes its own first request, answered too late, for somebody else's pod.
        """
        try:
            request = self.api.create_namespaced_pod(self.namespace, pod)
            await asyncio.wait_for(request, request_timeout)
            return True
        except _SILENCE:
            return False
        except ApiException as error:
            if error.status == 429 or error.status >= 500:
                return False
            if error.status != 409:
                raise
        there = await self._found()
        if there is not None and self._is_this_start(there):
            return True
        if there is None:
            return False
        raise self._refusal(
            Trouble("Your last server is still saving its work.", "Try again in a minute.", "saving")
        )


def _late(step: Look) -> Trouble:
    if step.trouble is not None:
        return step.trouble
    return Trouble(step.late, "Try again; if it stays, tell your operator.", "timeout", step.message)


def _said(error: ApiException) -> str:
    """The API's own sentence out of its answer."""
    text = str(error.body or error.reason or "")
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text


async def _answers(url: str) -> bool:
    """Whether somebody listens at the server's address."""
    where = urlsplit(url)
    try:
        _, writer = await asyncio.wait_for(
            asyncio.open_connection(where.hostname, where.port), ANSWER_SECONDS
        )
    except _SILENCE:
        return False
    writer.close()
    return True
