"""GpuSpawner: what every spawner of gpuhub shares, whatever it starts servers with.

Promises: the choice page and the API are judged by the same code, and what is not on offer is one clear
sentence (a `Refusal`), never an error of the hub; a person is offered what his groups may use; steps of
a start are told in plain words. The siblings (`local`, `kube`) add how a server is started.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from traitlets import Float, Int, TraitError, Unicode, default
from traitlets.config import LoggingConfigurable

from gpuspawner import choices
from gpuspawner.environments import BadEnvironments
from gpuspawner.images import EDITORS
from gpuspawner.language import N_, listen_to, spoken
from gpuspawner.profiles import (
    BadProfiles,
    Choice,
    NotOnOffer,
    Profile,
    check_profiles,
    choose,
    from_form,
    merged,
)
from gpuspawner.refusals import Refusal

TELL_SECONDS = 0.15
ASK_OPERATOR = N_("Tell your operator.")


class GpuSpawner(LoggingConfigurable):
    """Choice, judgement, and words, beside one of JupyterHub's spawners (which wants to be a base first:
    it takes no class that starts nothing). A subclass offers `raw_profiles`, has a trait ``profile_list``
    (an operator's own, in its place), and starts what was chosen.
    """

    user: Any
    user_options: Any
    handler: Any
    profile_list: Any

    environments_file = Unicode(help="YAML file with the environments on offer; read at each look.").tag(
        config=True
    )
    broker_url = Unicode(help="The broker as a server reaches it, ending before /api/v1.").tag(config=True)
    fence_seconds = Int(60, help="Handed to servers: how long a cut-off worker goes on.").tag(config=True)
    save_seconds = Float(
        180.0,
        help="Seconds that a server has for saving at its stop, at least. More saves larger states; less "
        "stops sooner. The default saves some 100 GB at the speed of a good disk.",
    ).tag(config=True)
    editor = Unicode("lab", help="lab, vscode or notebook.").tag(config=True)

    @default("options_form")
    def _options_form(self) -> Any:
        return _form

    @default("options_from_form")
    def _options_from_form(self) -> Any:
        return self._read_form

    @default("apply_user_options")
    def _apply_user_options(self) -> Any:
        return _apply

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._steps: list[dict[str, Any]] = []
        self._looked_up: Any = None
        self.refused: Refusal | None = None

    # --- what may be chosen

    def raw_profiles(self, groups: set[str]) -> Sequence[Mapping[str, Any]]:
        """The environments on offer, in a profile list's form. Raises `BadEnvironments`."""
        raise NotImplementedError

    def profiles(self) -> tuple[Profile, ...]:
        """The profiles on offer for this person. Raises `Refusal` where the operator's list is broken."""
        groups = {group.name for group in self.user.groups}
        try:
            if callable(self.profile_list):
                listed = check_profiles(self._looked_up or [])
            else:
                listed = check_profiles(self.profile_list or self.raw_profiles(groups))
        except (BadEnvironments, BadProfiles) as error:
            raise Refusal(
                "The list of environments is broken.",
                hint=ASK_OPERATOR,
                reason="environments",
                details=str(error),
                status_code=503,
            ) from error
        offered = tuple(profile for profile in listed if profile.open_to(groups))
        if not offered:
            raise Refusal("No environment is on offer for you.", hint=ASK_OPERATOR, reason="environments")
        return offered

    def chosen(self, options: Any) -> Choice:
        try:
            return choose(self.profiles(), options or {})
        except NotOnOffer as error:
            raise Refusal(error.sentence, reason="options") from error

    def cards(self) -> list[dict[str, Any]]:
        """For the choice page: the profiles, with what was chosen last."""
        self.listen()
        return choices.cards(self.profiles(), self.user_options)

    async def look_up(self) -> None:
        """Ask an operator's ``profile_list`` that is a function; it may take its time."""
        if callable(self.profile_list):
            self._looked_up = await _awaited(self.profile_list(self))

    async def take(self, choice: Choice) -> None:
        """Make the choice's settings this server's. Mappings are merged, as KubeSpawner does."""
        for name, value in choice.override.items():
            try:
                if not self.has_trait(name):
                    raise BadProfiles("there is no such setting")
                if callable(value):
                    value = await _awaited(value(self))
                setattr(self, name, merged(getattr(self, name), value, drop_none=True))
            except (BadProfiles, TraitError) as error:
                raise Refusal(
                    "The chosen environment is not set up rightly.",
                    hint=ASK_OPERATOR,
                    reason="environments",
                    details=f"profile {choice.profile.slug}, {name}: {error}",
                    status_code=503,
                ) from error

    # --- JupyterHub's spawner interface

    def run_pre_spawn_hook(self) -> Any:
        self.listen()  # here, so that the start, which comes next, is told in that language
        refusal, self.refused = self.refused, None
        if refusal is not None:
            raise refusal
        return super().run_pre_spawn_hook()  # type: ignore[misc]  # the spawner's, beside us

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """Say what happens, in plain words, until the server answers."""
        said = 0
        while True:
            while said < len(self._steps):
                step = self._steps[said]
                said += 1
                yield dict(step)
            await asyncio.sleep(TELL_SECONDS)

    # --- for the subclasses

    def say(self, share: int, message: str, *, again: bool = False) -> None:
        """Tell a step; ``share`` of 100. ``again``: it replaces the last one, whose time went on."""
        step: dict[str, Any] = {"progress": share, "message": spoken(message)}
        if again:
            step["again"] = True
        self._steps.append(step)

    def listen(self) -> None:
        """Speak the language of the browser that asks, where one does."""
        if self.handler is not None:
            listen_to(self.handler.request.headers.get("Accept-Language"))

    def title(self) -> str:
        """What is being started, for a sentence."""
        editor = EDITORS.get(self.editor)
        return editor.title if editor else N_("Your server")

    def session_env(self) -> dict[str, str]:
        """What the session in a server must be told, wherever it runs. A server has no GPU."""
        return {
            "GPUHUB_BROKER_URL": self.broker_url,
            "GPUHUB_FENCE_SECONDS": str(self.fence_seconds),
            "GPUHUB_SAVE_SECONDS": str(self.save_seconds),
            "CUDA_VISIBLE_DEVICES": "",
            "NVIDIA_VISIBLE_DEVICES": "void",
            "JUPYTER_DEFAULT_PROVISIONER_NAME": "gpuhub-provisioner",
            "JUPYTER_VSCODE_PROXY_USE_SOCKET": "1",
        }

    async def _read_form(self, form: Mapping[str, Sequence[str]]) -> dict[str, str]:
        self.listen()
        await self.look_up()
        return from_form(self.profiles(), form)


async def _form(spawner: GpuSpawner) -> str:
    """Mark that there is a choice to make; the template draws it from `GpuSpawner.cards`."""
    spawner.listen()
    await spawner.look_up()
    return "gpuhub"


async def _apply(spawner: GpuSpawner, options: Any) -> None:
    """Judge and apply what was chosen, whether it came from the page or the API.

    A refusal is kept for `run_pre_spawn_hook`, the next step: raised here, the hub would log every
    mistyped option with a traceback.
    """
    spawner.listen()
    try:
        await spawner.look_up()
        await spawner.take(spawner.chosen(options))
    except Refusal as refusal:
        spawner.refused = refusal


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
