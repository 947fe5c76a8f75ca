"""Every key of a recipe has an effect on what is made, and a mistake is one line that names the place."""

# ruff: noqa: E501  one case per line reads as a table

import pytest

from fedsim.errors import TraceError
from fedsim.experiment.recipe_source import load_recipe, recipe_names
from fedsim.world.calibration import NETWORKS, PRESENCE
from fedsim.world.make import synth_fleet

PLAIN = {
    "zones": "{1: 1.0}",
    "library": "{lte: 2}",
    "share": "1.0",
    "memory": "[4000]",
    "presence": "phone",
    "networks": "{lte: 1.0}",
    "class_more": "{}",
    "more": "",
}


@pytest.fixture
def recipe(tmp_path):
    def make(**changed):
        values = PLAIN | changed
        path = tmp_path / "mine.yaml"
        extra = values["class_more"][1:-1]
        path.write_text(
            f"zones: {values['zones']}\nlibrary: {values['library']}\n{values['more']}\nclasses:\n"
            f"  phone-mid: {{share: {values['share']}, memory_mib: {values['memory']}, gflops: 60, "
            f"presence: {values['presence']}, networks: {values['networks']}{', ' + extra if extra else ''}}}\n"
        )
        return load_recipe(str(path))

    return make


def test_shipped_recipes_are_made_of_what_is_known():
    assert recipe_names() == ("everyday", "gateways", "phones", "skewed_edge")
    assert load_recipe("gateways").families["lte-shared"].median_mbps == 8
    assert load_recipe("gateways").families["lte-shared"].slow_s == NETWORKS["lte"].slow_s
    assert load_recipe("skewed_edge").classes["pi-5"].presence == PRESENCE["board"]


@pytest.mark.parametrize(
    ("changed", "file"),
    [
        ({"zones": "{5.5: 1.0}"}, "devices.csv"),
        ({"memory": "[9000]"}, "devices.csv"),
        ({"more": "scale_ln_sd: 1.0"}, "devices.csv"),
        ({"class_more": "{gflops_ln_sd: 1.0}"}, "devices.csv"),
        ({"class_more": "{memory_ln_sd: 1.0}"}, "devices.csv"),
        ({"class_more": "{battery_wh: 20}"}, "devices.csv"),
        ({"presence": "board"}, "availability.csv"),
        ({"presence": "mine", "more": "presences: {mine: {online: [1, 1]}}"}, "availability.csv"),
        ({"presence": "mine", "more": "presences: {mine: {online: [1.15, 3.59], diurnal: 0}}"}, "availability.csv"),
        ({"presence": "mine", "more": "presences: {mine: {online: [1.15, 3.59], ln_sd: 0}}"}, "availability.csv"),
        (
            {"presence": "mine", "more": "presences: {mine: {online: [1.15, 3.59], changes_per_h: 3}}"},
            "availability.csv",
        ),
        ({"library": "{lte: {traces: 2, steps: 50}}"}, "bandwidth.csv"),
        ({"library": "{lte: {traces: 2, step_s: 3}}"}, "bandwidth.csv"),
        ({"class_more": "{slowing: {per_day: 9, median: 1 h, ln_sd: 1, share: [0.1, 0.2]}}"}, "state.csv"),
        ({"class_more": "{memory_use: {per_day: 9, median: 1 h, ln_sd: 1, share: [0.1, 0.2]}}"}, "state.csv"),
        ({"class_more": "{compute_w: 3}", "more": "energy: {lte: lte}"}, "energy.toml"),
        ({"class_more": "{battery_use: {charging: phone}}"}, "state.csv"),
        ({"class_more": "{on_wifi: phone}"}, "state.csv"),
        (
            {"presence": "mine", "more": "presences: {mine: {online: [1.15, 3.59], short_share: 0.5, short_factor: 9}}"},
            "availability.csv",
        ),
        (
            {"presence": "mine", "more": "presences: {mine: {online: [1.15, 3.59], short_share: 0.5, short_ln_sd: 1}}"},
            "availability.csv",
        ),
        *(
            ({"more": f"families: {{lte: {{like: lte, {key}: {value}}}}}"}, "bandwidth.csv")
            for key, value in (
                ("ratio", "5g"), ("median_mbps", 3), ("between_ln_sd", 2), ("slow_weight", 0.1), ("slow", "90 s"),
                ("fast", "9 s"), ("outage", "30 s"), ("between_outages", "9 s"), ("rtt_ms", 500),
                ("quantiles", "[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]"),
            )
        ),
    ],
)  # fmt: skip
def test_every_key_has_an_effect(recipe, changed, file):
    plain, other = (synth_fleet(made, 8, 1, 0) for made in (recipe(), recipe(**changed)))
    assert plain.get(file) != other.get(file)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"zones": "{1: 0.5}"}, "zones: expected shares >= 0 that add up to 1"),
        ({"zones": "{mars: 1.0}"}, 'expected hours from UTC, -14 to 14, got "mars"'),
        ({"share": "0.9"}, "classes: expected shares"),
        ({"networks": "{lte: 0.7}"}, "networks: expected shares"),
        ({"networks": "{wifi: 1.0}"}, 'expected one of lte, got "wifi"'),
        ({"library": "{lte: 2, dsl: 3}"}, 'got "dsl"'),
        ({"library": "{lte: 0}"}, "mine.yaml:2: library.lte"),
        ({"presence": "phones"}, 'did you mean "phone"'),
        ({"more": "colour: red"}, "mine.yaml:3: colour: unknown key"),
        ({"more": "families: {x: {like: lt}}"}, 'did you mean "lte"'),
        ({"more": "families: {x: {like: lte, ratio: dsl}}"}, "families.x.ratio"),
        ({"more": "families: {x: {like: lte, quantiles: [9, 8, 7, 6, 5, 4, 3, 2, 1]}}"}, "increasing"),
        ({"more": "energy: {lte: coal}"}, "energy.lte"),
        (
            {"more": "energy: {lte: lte}"},
            "energy: expected coefficients of all, found no compute_w of phone-mid",
        ),
        ({"class_more": "{compute_w: 3}"}, "energy: expected radios, since phone-mid has compute_w"),
        (
            {"class_more": "{compute_w: 3}", "library": "{lte: 2, 3g: 1}", "more": "energy: {lte: lte}"},
            "found no 3g",
        ),
        ({"class_more": "{on_wifi: phnoe}"}, "classes.phone-mid.on_wifi"),
        ({"class_more": "{battery_use: {charging: phnoe}}"}, "classes.phone-mid.battery_use.charging"),
        ({"class_more": "{battery_use: {hours_to_full: 3}}"}, "battery_use.charging: required"),
        ({"more": "extends: phnoes"}, "extends: no such recipe: phnoes; known: everyday"),
        ({"more": "extends: [phones]"}, "extends: expected the name or the path"),
        ({"more": "energy: {dsl: lte}"}, "energy"),
        ({"more": "presences: {x: {online: [1]}}"}, "mine.yaml:3: presences.x.online"),
        ({"more": "presences: {x: {online: [1, 2], diurnal: .nan}}"}, "diurnal"),
    ],
)
def test_a_mistake_is_one_line(recipe, changed, message):
    with pytest.raises(TraceError) as caught:
        recipe(**changed)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_that_is_not_there(tmp_path):
    with pytest.raises(TraceError, match="no such file"):
        load_recipe(str(tmp_path / "no.yaml"))
    with pytest.raises(TraceError, match='did you mean "phones"'):
        load_recipe("phone")


def test_a_recipe_may_extend_another(tmp_path):
    (tmp_path / "small.yaml").write_text("extends: phones\nlibrary: {lte: {traces: 2, steps: 60}}\n")
    small, whole = load_recipe(str(tmp_path / "small.yaml")), load_recipe("phones")
    assert small.library["lte"].num_steps == 60
    assert small.library["wifi"] == whole.library["wifi"]
    assert small.classes == whole.classes
    (tmp_path / "again.yaml").write_text("extends: small.yaml\n")
    with pytest.raises(TraceError, match="one level is allowed"):
        load_recipe(str(tmp_path / "again.yaml"))


@pytest.mark.parametrize(("hours", "key"), [("hours_to_full", 0.5), ("hours_to_empty", 4)])
def test_rates_of_a_battery_have_an_effect(recipe, hours, key):
    plain, other = (
        recipe(class_more=f"{{battery_use: {{charging: board{more}}}}}") for more in ("", f", {hours}: {key}")
    )
    assert synth_fleet(plain, 4, 1, 0)["state.csv"] != synth_fleet(other, 4, 1, 0)["state.csv"]
