"""From the files of config/ to runs and shards: what a grid means, what keeps its name, and what a mistake says."""

import json
import math
from collections.abc import Callable
from itertools import chain, product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from effective_lr.engine import grid
from effective_lr.engine.study import setting
from effective_lr.errors import UserError
from effective_lr.studies.normalization.settings import Run
from shared import ROOT, SMALL, STUDY, make_run

AXES: dict[str, st.SearchStrategy[Any]] = {
    "normalization": st.sampled_from(["batch", "weight", "layer"]),
    "optimizer": st.sampled_from(["sgd", "nesterov", "adam"]),
    "projected": st.booleans(),
    "lr": st.floats(1e-6, 1e3),
    "l2": st.floats(0, 1e3),
    "initial_norm": st.floats(1e-3, 1e3),
    "affine_lr": st.floats(1e-6, 1) | st.just("shared"),
    "seed": st.integers(0, 9),
}
GRIDS = st.fixed_dictionaries({}, optional={key: st.lists(axis, min_size=1, max_size=3) for key, axis in AXES.items()})
CASES = st.lists(st.fixed_dictionaries({}, optional=AXES), min_size=1, max_size=3)
RUNS = st.fixed_dictionaries({}, optional=AXES).map(lambda changes: make_run(**changes))
EXPANSIONS = st.tuples(GRIDS.filter(lambda axes: math.prod(map(len, axes.values())) < 100), CASES)


def expand(axes: dict[str, Any], cases: list[dict[str, Any]]) -> list[Run]:
    experiment = grid.Experiment(about="", grid=axes, cases=cases)
    return grid.Scale(about="", defaults=SMALL, experiments={"mine": experiment}).runs(Run)["mine"]


# Expansion


@given(EXPANSIONS)
def test_an_experiment_is_every_combination_of_its_grid_with_every_case_once(expansion: Any) -> None:
    axes, cases = expansion
    combinations = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    expected = {make_run(**{**values, **case}) for values in combinations for case in cases}
    runs = expand(axes, cases)
    assert set(runs) == expected
    assert len(runs) == len(expected)


def test_a_list_in_a_case_is_expanded() -> None:
    runs = expand({"seed": [1, 2]}, [{"optimizer": "sgd", "lr": [0.1, 0.2]}, {"optimizer": "adam", "lr": 0.3}])
    wanted = [{"optimizer": "sgd", "lr": 0.1}, {"optimizer": "sgd", "lr": 0.2}, {"optimizer": "adam", "lr": 0.3}]
    assert set(runs) == {make_run(seed=seed, **case) for seed in (1, 2) for case in wanted}
    assert len(runs) == 6


def test_a_single_value_needs_no_list() -> None:
    assert expand({"lr": 0.1, "l2": [0, 0.1]}, [{}]) == [make_run(lr=0.1, l2=0), make_run(lr=0.1, l2=0.1)]


def test_experiments_may_override_the_defaults() -> None:
    assert expand({"steps": 7}, [{"width": 3}]) == [make_run(steps=7, width=3)]


@given(EXPANSIONS, st.randoms(use_true_random=False))
def test_order_in_the_file_changes_neither_runs_nor_shards(expansion: Any, random: Any) -> None:
    axes, cases = expansion
    keys = random.sample(list(axes), len(axes))
    shuffled = expand({key: random.sample(axes[key], len(axes[key])) for key in keys}, random.sample(cases, len(cases)))
    runs = expand(axes, cases)
    assert {run.run_id for run in shuffled} == {run.run_id for run in runs}
    assert grid.shards(shuffled) == grid.shards(runs)


# Names


@given(EXPANSIONS)
def test_different_runs_have_different_names(expansion: Any) -> None:
    runs = expand(*expansion)
    assert len({run.run_id for run in runs}) == len(set(runs))


def test_a_setting_added_later_with_a_default_keeps_every_name() -> None:
    class LaterRun(Run):
        warmup: int = setting("", "ours", default=0)

    assert LaterRun(**SMALL).run_id == LaterRun(**SMALL, warmup=0).run_id == make_run().run_id
    assert LaterRun(**SMALL, warmup=9).run_id != make_run().run_id


@given(st.sampled_from(["lr", "l2", "affine_lr", "initial_norm"]), st.integers(1, 1000))
def test_the_spelling_of_a_number_does_not_matter(key: str, number: int) -> None:
    # YAML reads 1e-3, without a point, as text.
    spellings = [number, float(number), str(number), f"{number:.3e}"]
    runs = [make_run(**{key: spelling}) for spelling in spellings]
    assert len({run.run_id for run in runs}) == len({grid.to_json([run]) for run in runs}) == 1


def test_no_penalty_has_one_name() -> None:
    assert len({make_run(l2=zero).run_id for zero in (0, 0.0, "0", "0.0")}) == 1


# Shards


@given(EXPANSIONS)
def test_every_run_is_in_one_shard_with_others_that_differ_in_rate_penalty_and_starting_norm(expansion: Any) -> None:
    runs = expand(*expansion)
    shards = grid.shards(runs + runs)
    same = {"lr": 1.0, "l2": 0.0, "initial_norm": 1.0}
    assert sorted(run.run_id for run in chain(*shards.values())) == sorted(run.run_id for run in runs)
    for name, members in shards.items():
        assert len({run.model_copy(update=same) for run in members}) == 1
        assert {run.shard_id for run in members} == {name}
        assert grid.shards(reversed(members)) == {name: members}
    assert len(shards) == len({run.model_copy(update=same) for run in runs})


@given(EXPANSIONS, st.data())
def test_an_added_penalty_touches_one_shard(expansion: Any, data: Any) -> None:
    runs = expand(*expansion)
    chosen = data.draw(st.sampled_from(runs))
    before = grid.shards(runs)
    after = grid.shards([*runs, chosen.model_copy(update={"l2": 1234.5})])
    assert list(after) == list(before)
    touched = [name for name in after if grid.to_json(after[name]) != grid.to_json(before[name])]
    assert touched == [chosen.shard_id]


@given(EXPANSIONS)
def test_an_added_seed_adds_shards_and_touches_none(expansion: Any) -> None:
    runs = expand(*expansion)
    before = grid.shards(runs)
    after = grid.shards(runs + [run.model_copy(update={"seed": 1234}) for run in runs])
    assert {name: after[name] for name in before} == before
    assert {run.seed for name in after.keys() - before.keys() for run in after[name]} == {1234}


# What a training job is given


@given(st.lists(RUNS, max_size=4))
def test_runs_survive_the_way_through_json(runs: list[Run]) -> None:
    assert [Run(**settings) for settings in json.loads(grid.to_json(runs))] == runs


def test_json_tells_swapped_values_apart() -> None:
    run, swapped = make_run(lr=0.25, l2=0.5), make_run(lr=0.5, l2=0.25)
    assert set(run.model_dump().values()) == set(swapped.model_dump().values())
    assert grid.to_json([run]) != grid.to_json([swapped])


# The files of config/


SCALES = ROOT / "config" / STUDY.name


@pytest.mark.parametrize("scale", grid.scales(SCALES))
def test_every_run_of_a_committed_scale_has_a_name_and_a_shard(scale: str) -> None:
    _, experiments = grid.load_scale(SCALES, scale, STUDY)
    unique = grid.unique(experiments)
    assert len(set(unique)) == len({run.run_id for run in unique}) == len(unique) > 0
    assert set(chain(*grid.shards(unique).values())) == set(unique)


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        action()
    return str(error.value)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"scael": "smoke"}, [["scael", "'scale'"]]),
        ({"colour": "red"}, [["colour", "config/README.md"]]),
        ({"seed": 1}, [["seed", "defaults or an experiment"]]),
        ({"sed": 1}, [["sed", "'seed'", "defaults or an experiment"]]),
        ({"device": "gpu"}, [["device = 'gpu'", "'auto', 'cpu' or 'cuda'"]]),
        ({"scale": 3}, [["scale = 3", "string"]]),
        ({"retrain": "maybe", "device": "tpu"}, [["device = 'tpu'", "'cuda'"], ["retrain = 'maybe'", "boolean"]]),
    ],
)
def test_a_mistake_in_the_config_names_the_key_and_what_was_expected(values: Any, told: list[list[str]]) -> None:
    lines = refusal(lambda: grid.load_config(values)).splitlines()
    assert len(lines) == len(told)
    for line, parts in zip(lines, told, strict=True):
        assert line.startswith("config: ") and all(part in line for part in parts), line


def test_published_metrics_have_a_scale_and_results_of_their_own() -> None:
    config = grid.load_config({"metrics": "published"})
    assert (config.scale_name, config.results) == ("study", "published-study")
    config = grid.load_config({"metrics": "published", "scale": "smoke"})
    assert (config.scale_name, config.results) == ("smoke", "published-smoke")
    assert grid.load_config({}).results == grid.load_config({}).scale_name


def test_a_scale_based_on_another_states_what_differs(tmp_path: Path) -> None:
    plane = {"about": "", "grid": {"lr": [0.1, 0.2], "l2": 0}}
    base = {"about": "", "defaults": SMALL, "experiments": {"plane": plane}}
    other = {"based_on": "base", "defaults": {"steps": 7}, "experiments": {"plane": {"grid": {"lr": [0.3]}}}}
    for name, content in {"base": base, "other": other}.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    assert grid.load_scale(tmp_path, "other", STUDY)[1] == {"plane": [make_run(steps=7, lr=0.3, l2=0)]}
    assert len(grid.load_scale(tmp_path, "base", STUDY)[1]["plane"]) == 2
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({**base, "based_on": "other"}))
    said = refusal(lambda: grid.load_scale(tmp_path, "other", STUDY))
    assert "base.yaml" in said and "based_on = 'other'" in said
    (tmp_path / "base.yaml").write_text("about: [\n")  # the mistake is told where it stands
    assert f"{tmp_path}/base.yaml: line 2" in refusal(lambda: grid.load_scale(tmp_path, "other", STUDY))


def test_an_unknown_scale_is_told_with_those_there_are() -> None:
    said = refusal(lambda: grid.load_scale(SCALES, "lptop", STUDY))
    assert "scale = 'lptop'" in said and ", ".join(grid.scales(SCALES)) in said


@pytest.fixture
def mistake(tmp_path: Path) -> Callable[..., list[str]]:
    """What a scale file with this text, or of one experiment with these parts, says, without the name of the file."""

    def said(text: str | None = None, defaults: Any = None, experiment: Any = None, **axes: Any) -> list[str]:
        plane = {"about": "", "grid": axes, **(experiment or {})}
        whole = {"about": "", "defaults": {**SMALL, **(defaults or {})}, "experiments": {"plane": plane}}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(whole) if text is None else text)
        lines = refusal(lambda: grid.load_scale(tmp_path, "mine", STUDY)).splitlines()
        assert all(line.startswith(f"{tmp_path}/mine.yaml: ") for line in lines)
        return [line.removeprefix(f"{tmp_path}/mine.yaml: ") for line in lines]

    return said


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"device": "cpu"}, ["experiments.plane.device", "config/config.yaml"]),
        ({"experiment": {"lr": 1}}, ["experiments.plane.lr", "defaults or an experiment"]),
        ({"defaults": {"step": 3}}, ["defaults.step", "'steps'"]),
        ({"lr2": 3}, ["experiments.plane.lr2", "'lr'"]),
        ({"experiment": {"cases": [{"sed": 1}]}}, ["experiments.plane.sed", "'seed'"]),
        ({"experiment": {"gird": {}}}, ["experiments.plane.gird", "'grid'"]),
        ({"experiment": {"grid": [1]}}, ["experiments.plane.grid = [1]", "dictionary"]),
        ({"steps": "many"}, ["experiments.plane", "steps = 'many'", "integer"]),
        ({"lr": "0,1"}, ["experiments.plane", "lr = '0,1'", "number"]),
        ({"lr": None}, ["experiments.plane", "lr = None", "number"]),
        ({"lr": 0}, ["experiments.plane", "lr = 0", "greater than 0"]),
        ({"l2": [0, -1]}, ["experiments.plane", "l2 = -1", "greater than or equal to 0"]),
        ({"l2": math.inf}, ["experiments.plane", "l2 = inf", "finite"]),
        ({"l2": True}, ["experiments.plane", "l2 = true", "number"]),
        ({"optimizer": ["sgd", "sdg"]}, ["experiments.plane", "optimizer = 'sdg'", "'sgd'", "'adamw'"]),
        ({"affine_lr": "share"}, ["experiments.plane", "affine_lr = 'share'", "'shared'"]),
        ({"lr": []}, ["experiments.plane", "no runs", "empty"]),
        ({"experiment": {"cases": [{"lr": []}]}}, ["experiments.plane", "no runs", "empty"]),
        ({"experiment": {"cases": []}}, ["experiments.plane", "no runs", "cases"]),
        ({"text": "based_on: mine\n"}, ["based_on = 'mine'", "circle"]),
        ({"text": ""}, ["about, defaults and experiments", "None"]),
        ({"text": "- smoke\n"}, ["about, defaults and experiments", "['smoke']"]),
        ({"text": "about: ''\ndefaults: {}\n"}, ["experiments", "missing"]),
        ({"text": "about: [\n"}, ["line 2"]),
        ({"text": "about: a: b\n"}, ["line 1"]),
        ({"text": "about: '\x07'\n"}, ["not a text file"]),
        ({"text": "about: ''\ndefaults:\n  lr: 1\n  l2: 0\n  lr: 2\n"}, ["'lr'", "twice", "3", "5"]),
    ],
)
def test_a_mistake_in_a_scale_is_one_sentence(
    mistake: Callable[..., list[str]], parts: dict[str, Any], told: list[str]
) -> None:
    [line] = mistake(**parts)
    assert all(part in line for part in told), line


def test_a_missing_setting_is_named(mistake: Callable[..., list[str]]) -> None:
    defaults = {key: value for key, value in SMALL.items() if key != "lr"}
    text = yaml.safe_dump({"about": "", "defaults": defaults, "experiments": {"plane": {"about": ""}}})
    [line] = mistake(text)
    assert line.startswith("experiments.plane: lr: missing")


def test_mistakes_of_every_experiment_are_told_and_a_wrong_default_once(mistake: Callable[..., list[str]]) -> None:
    keys = [line.partition(": unknown")[0] for line in mistake(defaults={"step": 3, "momentun": 1}, lr2=1)]
    assert keys == ["defaults.momentun", "defaults.step", "experiments.plane.lr2"]
    experiments = {"plane": {"about": "", "grid": {"l2": [0, -1, -2]}}, "symmetry": {"about": "", "grid": {"lr": 0}}}
    lines = mistake(yaml.safe_dump({"about": "", "defaults": {**SMALL, "steps": 0}, "experiments": experiments}))
    where = [line.split(": input")[0] for line in lines]
    assert sorted(where) == [
        "experiments.plane: l2 = -1",
        "experiments.plane: l2 = -2",
        "experiments.plane: steps = 0",
        "experiments.symmetry: lr = 0",
    ]
