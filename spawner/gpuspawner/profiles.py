"""Profile lists: what may be chosen at a server's start, in KubeSpawner's form and meaning.

Pure functions, shared by every spawner, so that the page and the API are judged by the same code:

* `check_profiles` reads an operator's list and refuses a broken one with its place (`BadProfiles`).
* `choose` turns what somebody sent into a `Choice`, or raises `NotOnOffer` with a clear sentence.
  The hub stores user options unmodified from anybody who may start a server, so nothing in them is
  believed: types, profile, option, choice and free values are all checked.
* `from_form` turns the choice page's fields into the same options that the API takes.

Form: a list of ``{slug, display_name, description, default, kubespawner_override, profile_options}``;
an option is ``{display_name, choices: {key: {display_name, default, kubespawner_override}},
unlisted_choice: {enabled, display_name, validation_regex, validation_message, kubespawner_override}}``.
``override`` may be written for ``kubespawner_override``. Options as sent: ``{"profile": slug,
"<option>": key}``, or ``{"<option>--unlisted-choice": text}``. Overrides apply in order: profile first,
then each option's choice; mappings among them are merged, as KubeSpawner does. A profile's ``groups``
(ours) says who may use it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpuspawner.language import N_, Sentence
from gpuspawner.names import slug as slugify

MAX_VALUE = 1000
"""Characters of a free value."""
UNLISTED = "--unlisted-choice"

Override = dict[str, Any]


class BadProfiles(ValueError):
    """The operator's list is broken. The message says where."""


class NotOnOffer(ValueError):
    """Somebody asked for what is not on offer. ``sentence`` is for that person."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


@dataclass(frozen=True)
class OptionChoice:
    key: str
    title: str
    default: bool = False
    override: Override = field(default_factory=dict)
    description: str = ""


@dataclass(frozen=True)
class Unlisted:
    """A free value, where the operator allows one."""

    title: str
    pattern: str | None
    message: str
    override: Override


@dataclass(frozen=True)
class Option:
    name: str
    title: str
    choices: tuple[OptionChoice, ...]
    unlisted: Unlisted | None = None

    @property
    def default(self) -> OptionChoice | None:
        """The choice that counts when nothing was said; None where only a free value is possible."""
        return next((c for c in self.choices if c.default), self.choices[0] if self.choices else None)

    def find(self, key: str) -> OptionChoice | None:
        return next((c for c in self.choices if c.key == key), None)


@dataclass(frozen=True)
class Profile:
    slug: str
    title: str
    description: str = ""
    default: bool = False
    override: Override = field(default_factory=dict)
    options: tuple[Option, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of the list's entry, for the page: icon, versions, …"""

    def option(self, name: str) -> Option | None:
        return next((o for o in self.options if o.name == name), None)

    def open_to(self, groups: set[str]) -> bool:
        """Whether somebody in ``groups`` may use it: the entry's ``groups``; none: everybody."""
        wanted = self.extra.get("groups") or ()
        return not wanted or bool(groups & set(wanted))


@dataclass(frozen=True)
class Choice:
    """What somebody chose, checked. ``picked`` says which choice of each option (None: a free value)."""

    profile: Profile
    picked: Mapping[str, OptionChoice | None]
    override: Override


_PROFILE_KEYS = {
    "slug",
    "display_name",
    "description",
    "default",
    "kubespawner_override",
    "override",
    "profile_options",
}


def check_profiles(raw: Any) -> tuple[Profile, ...]:
    """Return the list, checked. Raises `BadProfiles`."""
    if isinstance(raw, Mapping):  # KubeSpawner sorts the dict form by its keys
        raw = [raw[key] for key in sorted(raw)]
    if not isinstance(raw, Sequence) or isinstance(raw, str):
        raise BadProfiles("the profile list must be a list of profiles")
    profiles = tuple(_profile(entry, f"profile {n}") for n, entry in enumerate(raw, 1))
    if not profiles:
        raise BadProfiles("the profile list is empty")
    _unique([p.slug for p in profiles], "the profile list", "slug")
    return profiles


def default_profile(profiles: Sequence[Profile]) -> Profile:
    """Return the profile that counts when nothing was chosen: the one marked so, else the first."""
    return next((p for p in profiles if p.default), profiles[0])


def choose(profiles: Sequence[Profile], options: Any) -> Choice:
    """Return what ``options`` ask for. Raises `NotOnOffer`; never anything else, whatever was sent."""
    if not isinstance(options, Mapping):
        raise NotOnOffer('The options of a server must be an object, for example {"profile": "…"}.')
    for key, value in options.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise NotOnOffer(Sentence("The option {option} must be a text.", option=_shown(key)))
        if len(value) > MAX_VALUE or any(ord(char) < 32 or ord(char) == 127 for char in value):
            raise NotOnOffer(
                Sentence(
                    "The value of the option {option} is too long or holds control characters.",
                    option=_shown(key),
                )
            )
    wanted = options.get("profile")
    if wanted is None:
        profile = default_profile(profiles)
    else:
        found = next((p for p in profiles if p.slug == wanted), None)
        if found is None:
            raise NotOnOffer(
                Sentence(
                    "There is no environment {name}. {offer}",
                    name=_shown(wanted),
                    offer=_offer(p.slug for p in profiles),
                )
            )
        profile = found
    for key in options:
        name = key.removesuffix(UNLISTED)
        if key != "profile" and profile.option(name) is None:
            raise NotOnOffer(
                Sentence(
                    "The environment {environment} has no option {name}. {offer}",
                    environment=profile.slug,
                    name=_shown(name),
                    offer=_offer(o.name for o in profile.options),
                )
            )
    override = dict(profile.override)
    picked: dict[str, OptionChoice | None] = {}
    for option in profile.options:
        picked[option.name], values = _pick(option, options)
        override = merged(override, values)
    return Choice(profile, picked, override)


def from_form(profiles: Sequence[Profile], form: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the options that the page's fields say. Unchecked: `choose` judges them like the API's.

    Fields: ``profile``; for the options of each profile ``profile-option-<slug>--<option>`` (as in
    KubeSpawner), of which only those of the chosen profile count.
    """
    options: dict[str, str] = {}
    wanted = _first(form.get("profile"))
    if wanted is not None:
        options["profile"] = wanted
    slug = default_profile(profiles).slug if wanted is None else wanted
    for name in form:
        prefix = f"profile-option-{slug}--"
        if name.startswith(prefix):
            value = _first(form.get(name))
            key = name.removeprefix(prefix)
            if value is not None and not (key.endswith(UNLISTED) and value == ""):
                options[key] = value
    for name in list(options):
        if name.endswith(UNLISTED):  # a free value was typed: the radio button beside it says nothing
            options.pop(name.removesuffix(UNLISTED), None)
    return options


def merged(old: Any, new: Any, *, drop_none: bool = False) -> Any:
    """Return ``new`` over ``old``: mappings are merged to any depth, everything else is replaced.

    ``drop_none``: a None inside a mapping removes its key. Neither argument is changed.
    """
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return new
    result = dict(old)
    for key, value in new.items():
        if value is None and drop_none:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            result[key] = merged(result.get(key) or {}, value, drop_none=drop_none)
        else:
            result[key] = value
    return result


def _pick(option: Option, options: Mapping[str, str]) -> tuple[OptionChoice | None, Override]:
    free = options.get(option.name + UNLISTED)
    key = options.get(option.name)
    if free is not None:
        if option.unlisted is None:
            raise NotOnOffer(Sentence("The option {option} takes no value of one's own.", option=option.name))
        if key is not None:
            raise NotOnOffer(Sentence("The option {option} was given twice.", option=option.name))
        if option.unlisted.pattern is not None and not re.fullmatch(option.unlisted.pattern, free):
            raise NotOnOffer(
                option.unlisted.message
                or Sentence("The value of {option} is not allowed.", option=option.name)
            )
        return None, _fill(option.unlisted.override, free)
    if key is None:
        default = option.default
        return (None, {}) if default is None else (default, default.override)
    choice = option.find(key)
    if choice is None:
        raise NotOnOffer(
            Sentence(
                "The option {option} has no choice {name}. {offer}",
                option=option.name,
                name=_shown(key),
                offer=_offer(c.key for c in option.choices),
            )
        )
    return choice, choice.override


def _fill(template: Any, value: str) -> Any:
    """Put the free value into an override. Not str.format: braces of the value must stay what they are."""
    if isinstance(template, str):
        return template.replace("{value}", value)
    if isinstance(template, Mapping):
        return {key: _fill(entry, value) for key, entry in template.items()}
    if isinstance(template, list):
        return [_fill(entry, value) for entry in template]
    return template


def _profile(raw: Any, where: str) -> Profile:
    entry = _mapping(raw, where)
    title = _text(entry, "display_name", where)
    slug = entry.get("slug") or slugify(title, 40)
    if not isinstance(slug, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", slug):
        raise BadProfiles(f"{where}: slug must be letters, digits, '.', '_' and '-'")
    where = f"profile {slug}"
    options = entry.get("profile_options") or {}
    if not isinstance(options, Mapping):
        raise BadProfiles(f"{where}: profile_options must be a mapping")
    groups = entry.get("groups") or []
    if not isinstance(groups, list | tuple) or not all(isinstance(group, str) for group in groups):
        raise BadProfiles(f"{where}: groups must be a list of names")
    return Profile(
        slug=slug,
        title=title,
        description=_text(entry, "description", where, ""),
        default=bool(entry.get("default", False)),
        override=_override(entry, where),
        options=tuple(_option(name, option, where) for name, option in options.items()),
        extra={key: value for key, value in entry.items() if key not in _PROFILE_KEYS},
    )


def _option(name: Any, raw: Any, where: str) -> Option:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", name):
        raise BadProfiles(f"{where}: the option name {name!r} must be letters, digits, '_', '.' and '-'")
    if name == "profile" or name.endswith(UNLISTED):
        raise BadProfiles(f"{where}: an option cannot be called {name}")
    where = f"{where}, option {name}"
    entry = _mapping(raw, where)
    choices = _mapping(entry.get("choices") or {}, f"{where}, choices")
    unlisted = _mapping(entry.get("unlisted_choice") or {}, f"{where}, unlisted_choice")
    read = tuple(_choice(str(key), choice, where) for key, choice in choices.items())
    free = _unlisted(unlisted, where) if unlisted.get("enabled") else None
    if not read and free is None:
        raise BadProfiles(f"{where}: there is nothing to choose")
    return Option(name, _text(entry, "display_name", where, name), read, free)


def _choice(key: str, raw: Any, where: str) -> OptionChoice:
    where = f"{where}, choice {key}"
    entry = _mapping(raw, where)
    return OptionChoice(
        key=key,
        title=_text(entry, "display_name", where, key),
        default=bool(entry.get("default", False)),
        override=_override(entry, where),
        description=_text(entry, "description", where, ""),
    )


def _unlisted(entry: Mapping[str, Any], where: str) -> Unlisted:
    pattern = entry.get("validation_regex")
    if pattern is not None:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise BadProfiles(f"{where}: validation_regex is not a regular expression: {error}") from None
    return Unlisted(
        title=_text(entry, "display_name", where, N_("Other")),
        pattern=pattern,
        message=_text(entry, "validation_message", where, ""),
        override=_override(entry, where),
    )


def _override(entry: Mapping[str, Any], where: str) -> Override:
    if "override" in entry and "kubespawner_override" in entry:
        raise BadProfiles(f"{where}: override and kubespawner_override say the same; write one")
    found = entry.get("override", entry.get("kubespawner_override")) or {}
    return dict(_mapping(found, f"{where}, override"))


def _mapping(raw: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise BadProfiles(f"{where}: must be a mapping")
    return raw


def _text(entry: Mapping[str, Any], key: str, where: str, default: str | None = None) -> str:
    value = entry.get(key, default)
    if not isinstance(value, str) or (default is None and not value.strip()):
        raise BadProfiles(f"{where}: {key} must be a text")
    return value


def _unique(names: Iterable[str], where: str, what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BadProfiles(f"{where}: the {what} {name} stands twice")
        seen.add(name)


def _first(values: Sequence[str] | None) -> str | None:
    return values[0] if values else None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…" + text[0]


def _offer(keys: Iterable[str]) -> str:
    listed = ", ".join(keys)
    return Sentence("On offer: {listed}.", listed=listed) if listed else N_("It has none.")
