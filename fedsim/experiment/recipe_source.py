"""How is a recipe file read? YAML in, checked line by line, a frozen `Recipe` out.

Recipes that come with fedsim are files beside this module and go by their name; everybody's own go by path.
"""

from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from pydantic import Field, ValidationError

from fedsim.errors import ScenarioError, TraceError, nearest
from fedsim.experiment.explain import message_of
from fedsim.experiment.sections import Count, Positive, PositiveDuration, Section, Word
from fedsim.experiment.yaml_source import Source, merge, read_source
from fedsim.world.calibration import (
    LEVELS,
    NETWORKS,
    PRESENCE,
    RADIO_POWER,
    RATIO_MODELS,
    NetworkFamily,
    Presence,
)
from fedsim.world.recipe import ClassRecipe, LibraryPart, Recipe
from fedsim.world.synth import Battery, Disturbance

_Value = TypeVar("_Value")
Share = Annotated[float, Field(ge=0, le=1)]
Spread = Annotated[float, Field(ge=0, le=5)]


class PresenceSection(Section):
    """How devices of a kind come and go; `diurnal` is the strength of the daily rhythm.

    Args:
        online: The two parameters of the Beta distribution of a device's long-run online share.
        diurnal: 1.4 is that of measured phones, 0 is none, a negative one is awake by day.
        ln_sd: Spread of the log of the switching rate from stay to stay.
        changes_per_h: Switching rate; smaller means longer stays.
        short_share: Share of stays and absences that are short ones.
        short_factor: By how much faster these end.
        short_ln_sd: Spread of the log of the switching rate among them.
    """

    online: Annotated[list[Positive], Field(min_length=2, max_length=2)]
    diurnal: Annotated[float, Field(ge=-5, le=5)] = 1.4
    ln_sd: Spread = 0.8
    changes_per_h: Positive = 1.0
    short_share: Share = 0.0
    short_factor: Positive = 1.0
    short_ln_sd: Spread = 0.0


class FamilySection(Section):
    """An access network: what differs from the one it is `like`. Times are durations such as ``30 s``."""

    like: Word
    ratio: Word | None = None
    median_mbps: Positive | None = None
    between_ln_sd: Spread | None = None
    quantiles: Annotated[list[Positive], Field(min_length=len(LEVELS), max_length=len(LEVELS))] | None = None
    slow_weight: Share | None = None
    slow_s: PositiveDuration | None = Field(default=None, alias="slow")
    fast_s: PositiveDuration | None = Field(default=None, alias="fast")
    outage_s: PositiveDuration | None = Field(default=None, alias="outage")
    up_s: PositiveDuration | None = Field(default=None, alias="between_outages")
    rtt_ms: Positive | None = None


class DisturbanceSection(Section):
    """Something that takes a part of a device for a while."""

    per_day: Positive
    median_s: PositiveDuration = Field(alias="median")
    ln_sd: Spread
    share: Annotated[list[Share], Field(min_length=2, max_length=2)]


class BatterySection(Section):
    """How a battery fills and empties, for the state file; `charging` names the presence of its charger."""

    charging: Word
    hours_to_full: Positive = 2.5
    hours_to_empty: Positive = 20.0


class ClassSection(Section):
    """One class of devices; see `ClassRecipe`."""

    share: Share
    memory_mib: Annotated[list[Count], Field(min_length=1)]
    gflops: Positive
    presence: Word
    networks: dict[Word, Share]
    battery_wh: Positive | None = None
    memory_use: DisturbanceSection | None = None
    slowing: DisturbanceSection | None = None
    gflops_ln_sd: Spread = 0.35
    memory_ln_sd: Spread = 0.06
    compute_w: Positive | None = None
    battery_use: BatterySection | None = None
    on_wifi: Word | None = None


class LibrarySection(Section):
    """Traces of one family."""

    traces: Count
    steps: Annotated[int, Field(ge=2, le=1_000_000)] = 900
    step_s: Annotated[int, Field(ge=1, le=3600)] = 1


class RecipeSection(Section):
    """A recipe file; `extends` in it names another one that it is laid over.

    Args:
        zones: Hours from UTC -> share.
        classes: By name.
        library: Family -> number of traces, or how many and how long.
        presences: Named kinds of coming and going, beside the built-in ones.
        families: Named networks, beside the built-in ones.
        scale_ln_sd: Spread of the log of a device's own factor on its trace.
        energy: Family -> radio whose power is written beside the fleet.
    """

    zones: dict[Word, Share]
    classes: dict[Word, ClassSection]
    library: dict[Word, Count | LibrarySection]
    presences: dict[Word, PresenceSection] = Field(default_factory=dict)
    families: dict[Word, FamilySection] = Field(default_factory=dict)
    scale_ln_sd: Spread = 0.15
    energy: dict[Word, Word] = Field(default_factory=dict)


def recipe_names() -> tuple[str, ...]:
    """Return the names of the recipes that come with fedsim."""
    folder = files("fedsim.experiment") / "recipes"
    return tuple(
        sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))
    )


def load_recipe(name: str) -> Recipe:
    """Read a recipe by name, or by the path of a YAML file.

    Raises:
        TraceError: If there is no such recipe, or with the line of what is wrong in it.
    """
    if name in recipe_names():
        return _recipe(name, _own_path(name))
    if not name.endswith((".yaml", ".yml")):
        near = nearest(name, recipe_names())
        raise TraceError(
            f'--recipe: expected one of {", ".join(recipe_names())}, or a YAML file, got "{name}"'
            f"{near or '; choose one'}"
        )
    return _recipe(Path(name).name, Path(name))


def _recipe(name: str, path: Path) -> Recipe:
    try:
        source = _with_parent(read_source(path), path)
        section = RecipeSection.model_validate(source.values)
    except ScenarioError as error:
        raise TraceError(str(error)) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place, key = source.place(first["loc"]), ".".join(map(str, first["loc"]))
        raise TraceError(f"{place}: {key}: {message_of(first, RecipeSection)}") from None
    try:
        return _made(name, section)
    except TraceError as error:
        raise TraceError(f"{path}: {error}") from None


def _with_parent(child: Source, path: Path) -> Source:
    """Lay a recipe over the one that it extends: one that comes with fedsim, or another file."""
    name = child.values.pop("extends", None)
    if name is None:
        return child
    where = f"{child.places['extends',]}: extends"
    if not isinstance(name, str):
        raise ScenarioError(f"{where}: expected the name or the path of a recipe")
    parent_path = _own_path(name) if name in recipe_names() else path.parent / name
    if not parent_path.is_file():
        raise ScenarioError(f"{where}: no such recipe: {name}; known: {', '.join(recipe_names())}, or a file")
    parent = read_source(parent_path)
    if "extends" in parent.values:
        raise ScenarioError(f"{where}: {name} extends another one; one level is allowed")
    return merge(parent, child)


def _own_path(name: str) -> Path:
    return Path(str(files("fedsim.experiment") / "recipes" / f"{name}.yaml"))


def _made(name: str, section: RecipeSection) -> Recipe:
    presences = {**PRESENCE, **{key: _presence(made) for key, made in section.presences.items()}}
    families = dict(NETWORKS)
    for key, own in section.families.items():
        families[key] = _family(key, own, families)
    return Recipe(
        name=name,
        classes={key: _class(key, made, presences) for key, made in section.classes.items()},
        zones_h={hours_from_utc(text): share for text, share in section.zones.items()},
        families=families,
        library={key: _part(_calm(key, section), made) for key, made in section.library.items()},
        scale_ln_sd=section.scale_ln_sd,
        energy={key: _known(f"energy.{key}", radio, RADIO_POWER) for key, radio in section.energy.items()},
    )


def _known(where: str, name: str, known: Mapping[str, _Value]) -> _Value:
    if name not in known:
        near = nearest(name, known)
        raise TraceError(f'{where}: expected one of {", ".join(known)}, got "{name}"{near or "; choose one"}')
    return known[name]


def _presence(section: PresenceSection) -> Presence:
    return Presence(
        beta=(section.online[0], section.online[1]),
        diurnal=section.diurnal,
        ln_sd=section.ln_sd,
        rate_per_h=section.changes_per_h,
        short_share=section.short_share,
        short_factor=section.short_factor,
        short_ln_sd=section.short_ln_sd,
    )


def _family(key: str, section: FamilySection, known: Mapping[str, NetworkFamily]) -> NetworkFamily:
    below = _known(f"families.{key}.like", section.like, known)
    if section.ratio is not None:
        _known(f"families.{key}.ratio", section.ratio, RATIO_MODELS)
    quantiles = below.quantiles if section.quantiles is None else tuple(section.quantiles)
    if any(b <= a for a, b in pairwise(quantiles)):
        raise TraceError(f"families.{key}.quantiles: expected increasing numbers, got {quantiles}; sort them")
    given = {
        "ratio": section.ratio,
        "median_mbps": section.median_mbps,
        "between_sd": section.between_ln_sd,
        "slow_weight": section.slow_weight,
        "slow_s": section.slow_s,
        "fast_s": section.fast_s,
        "outage_s": section.outage_s,
        "up_s": section.up_s,
        "rtt_ms": section.rtt_ms,
    }
    own: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return replace(below, quantiles=quantiles, **own)


def _class(key: str, section: ClassSection, presences: Mapping[str, Presence]) -> ClassRecipe:
    return ClassRecipe(
        share=section.share,
        memory_mib=tuple(section.memory_mib),
        gflops=section.gflops,
        presence=_known(f"classes.{key}.presence", section.presence, presences),
        networks=section.networks,
        battery_wh=section.battery_wh,
        memory_use=_disturbance(section.memory_use),
        slowing=_disturbance(section.slowing),
        gflops_ln_sd=section.gflops_ln_sd,
        memory_ln_sd=section.memory_ln_sd,
        compute_w=section.compute_w,
        battery_use=_battery(key, section.battery_use, presences),
        on_wifi=None
        if section.on_wifi is None
        else _known(f"classes.{key}.on_wifi", section.on_wifi, presences),
    )


def _battery(key: str, section: BatterySection | None, presences: Mapping[str, Presence]) -> Battery | None:
    if section is None:
        return None
    charging = _known(f"classes.{key}.battery_use.charging", section.charging, presences)
    return Battery(charging, section.hours_to_full, section.hours_to_empty)


def _disturbance(section: DisturbanceSection | None) -> Disturbance | None:
    if section is None:
        return None
    return Disturbance(
        section.per_day, section.median_s, section.ln_sd, cast("tuple[float, float]", tuple(section.share))
    )


def hours_from_utc(text: str) -> float:
    """Read a time zone.

    Raises:
        TraceError: If it is not a number of hours, -14 to 14.
    """
    try:
        hours = float(text)
    except ValueError:
        hours = float("nan")
    if not -14 <= hours <= 14:
        raise TraceError(
            f'time zone: expected hours from UTC, -14 to 14, got "{text}"; write for instance 5.5'
        )
    return hours


def _calm(key: str, section: RecipeSection) -> bool:
    """Whether a family is sampled every 2 s by default: links at a fixed place fade slowly."""
    own = section.families.get(key)
    return (key if own is None else own.like).startswith(("wifi", "ethernet"))


def _part(calm: bool, section: int | LibrarySection) -> LibraryPart:
    if isinstance(section, LibrarySection):
        return LibraryPart(section.traces, section.steps, section.step_s)
    return LibraryPart(section, 600, 2) if calm else LibraryPart(section, 900, 1)
