"""From the files of config/ to runs and shards: what a grid means, what keeps its name, and what a mistake says."""

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import chain, product
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import SMALL, make_run
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from effective_lr import grid
from effective_lr.config import Run, UserError, setting

ROOT = Path(__file__).parent.parent
SCALES = ROOT / "config" / "scales"
PACKAGE = ROOT / "workflow" / "effective_lr"

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
    return grid.Scale(about="", defaults=SMALL, experiments={"mine": experiment}).runs()["mine"]


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


def test_the_name_of_a_run_is_the_one_it_always_had() -> None:
    # Results lie under this name: a change of it trains everything again.
    run = make_run(normalization="layer", optimizer="adam", projected=True, lr=0.003, l2=1e-5, seed=100)
    assert run.run_id == "layer-adam-projected-lr_0.003-l2_1e-05-seed_100-cee389"
    assert run.shard_id == "layer-adam-projected-lr_0.003-seed_100-29f23a"


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
def test_every_run_is_in_one_shard_with_others_that_differ_in_penalty_and_starting_norm(expansion: Any) -> None:
    runs = expand(*expansion)
    shards = grid.shards(runs + runs)
    assert sorted(run.run_id for run in chain(*shards.values())) == sorted(run.run_id for run in runs)
    for name, members in shards.items():
        alike = {run.model_copy(update={"l2": 0.0, "initial_norm": 1.0}) for run in members}
        assert len(alike) == 1
        assert {run.shard_id for run in members} == {name}
        assert [run.l2 for run in members] == sorted(run.l2 for run in members)
    assert len(shards) == len({run.model_copy(update={"l2": 0.0, "initial_norm": 1.0}) for run in runs})


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


SOURCE = '''"""Module."""

RATE = 0.5  # half


def rate(x: float) -> float:
    """Function."""
    return RATE * x


class Layer:
    """Class."""

    name = "layer"
'''


@pytest.fixture
def fingerprint(tmp_path: Path) -> Callable[[str], str]:
    def of(source: str, name: str = "module.py") -> str:
        (tmp_path / name).write_text(source)
        return grid.code_fingerprint([tmp_path / name])

    return of


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# half", "# one half"),
        ("  # half", ""),
        ("RATE = 0.5", "RATE = (\n    0.50\n)"),
        ("\n\n\n", "\n"),
        ('"layer"', "'layer'"),
        ("Module.", "Edited."),
        ("Function.", "Edited."),
        ("Class.", "Edited."),
    ],
)
def test_comments_formatting_and_docstrings_are_not_code(fingerprint: Callable[[str], str], old: str, new: str) -> None:
    assert SOURCE.replace(old, new) != SOURCE
    assert fingerprint(SOURCE.replace(old, new)) == fingerprint(SOURCE)


@pytest.mark.parametrize(("old", "new"), [("0.5", "0.25"), ("RATE * x", "x * RATE"), ('"layer"', '"batch"')])
def test_an_edit_is_code(fingerprint: Callable[[str], str], old: str, new: str) -> None:
    assert SOURCE.replace(old, new) != SOURCE
    assert fingerprint(SOURCE.replace(old, new)) != fingerprint(SOURCE)


def test_time_stamps_and_the_order_of_files_are_not_code(tmp_path: Path) -> None:
    a, b = tmp_path / "a.py", tmp_path / "b.py"
    a.write_text(SOURCE)
    b.write_text("x = 1\n")
    before = grid.code_fingerprint([a, b])
    os.utime(a, (0, 0))
    assert grid.code_fingerprint([b, a]) == before
    assert grid.code_fingerprint([a]) != before


def test_the_training_sources_are_all_that_training_imports() -> None:
    show = "import sys, effective_lr.training as t; print(*[n for n in sys.modules if n.startswith('effective_lr.')])"
    result = subprocess.run(
        [sys.executable, "-c", show],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {PACKAGE / f"{name.removeprefix('effective_lr.')}.py" for name in result.stdout.split()}
    assert imported == set(grid.TRAINING_SOURCES)


# The files of config/


@pytest.mark.parametrize(
    ("scale", "runs", "shards"), [("smoke", 102, 34), ("laptop", 393, 88), ("study", 502, 129), ("paper", 3860, 585)]
)
def test_the_committed_scales(scale: str, runs: int, shards: int) -> None:
    unique = set(chain(*grid.load_scale(SCALES, scale).runs().values()))
    assert len(unique) == len({run.run_id for run in unique}) == runs
    assert len(grid.shards(list(unique))) == shards


def test_every_committed_scale_is_counted_here() -> None:
    assert {path.stem for path in SCALES.iterdir()} == {"smoke", "laptop", "study", "paper"}


@pytest.mark.parametrize("scale", ["smoke", "laptop", "study", "paper"])
def test_the_tags_in_a_scale_are_those_of_the_model(scale: str) -> None:
    text = (SCALES / f"{scale}.yaml").read_text().partition("\nexperiments:")[0]
    tagged = {
        key: (yaml.safe_load(value), tag)
        for key, value, tag in re.findall(r"^  (\w+): (\S+)  # \[(\w+)\]", text, flags=re.MULTILINE)
    }
    stated = yaml.safe_load((SCALES / f"{scale}.yaml").read_text())["defaults"]
    assert {key: value for key, (value, _) in tagged.items()} == stated
    assert {key: tag for key, (_, tag) in tagged.items()} == {
        key: source_of(key) if isinstance(source_of(key), str) else source_of(key)[value]
        for key, (value, _) in tagged.items()
    }


def source_of(key: str) -> Any:
    extra = Run.model_fields[key].json_schema_extra
    assert isinstance(extra, dict)
    return extra["source"]


# Mistakes: the place, what was found, what was expected or what to do


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        action()
    return str(error.value)


@pytest.mark.parametrize(
    ("values", "sentences"),
    [
        ({"scael": "smoke"}, "config: scael: unknown key; did you mean 'scale'?"),
        ({"colour": "red"}, "config: colour: unknown key; config/README.md lists the keys"),
        (
            {"lr": 0.1},
            "config: lr: unknown key here; it is a setting of runs: defaults or an experiment of a file of "
            "config/scales",
        ),
        (
            {"step": 10},
            "config: step: unknown key; did you mean 'steps', which is a setting of runs: defaults or an experiment "
            "of a file of config/scales?",
        ),
        ({"device": "gpu"}, "config: device = 'gpu': input should be 'auto', 'cpu' or 'cuda'"),
        ({"scale": 3}, "config: scale = 3: input should be a valid string"),
        (
            {"retrain": "maybe", "device": "tpu"},
            "config: device = 'tpu': input should be 'auto', 'cpu' or 'cuda'\n"
            "config: retrain = 'maybe': input should be a valid boolean, unable to interpret input",
        ),
    ],
)
def test_a_mistake_in_the_config(values: dict[str, Any], sentences: str) -> None:
    assert refusal(lambda: grid.load_config(values)) == sentences


def test_the_committed_config_holds_every_key_at_its_default() -> None:
    values = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    assert values == grid.Config().model_dump()


def test_a_scale_based_on_another_states_what_differs(tmp_path: Path) -> None:
    base = {
        "about": "",
        "defaults": SMALL,
        "experiments": {"plane": {"about": "", "grid": {"lr": [0.1, 0.2], "l2": 0}}},
    }
    other = {"based_on": "base", "defaults": {"steps": 7}, "experiments": {"plane": {"grid": {"lr": [0.3]}}}}
    for name, content in {"base": base, "other": other}.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    assert grid.load_scale(tmp_path, "other").runs() == {"plane": [make_run(steps=7, lr=0.3, l2=0)]}
    assert len(grid.load_scale(tmp_path, "base").runs()["plane"]) == 2
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({**base, "based_on": "other"}))
    said = refusal(lambda: grid.load_scale(tmp_path, "other"))
    assert said == f"{tmp_path}/base.yaml: based_on = 'other': expected one of the other scales, not in a circle"
    (tmp_path / "base.yaml").write_text("about: [\n")  # the mistake is told where it stands
    assert refusal(lambda: grid.load_scale(tmp_path, "other")).startswith(f"{tmp_path}/base.yaml: line 2: not valid")


def test_an_unknown_scale() -> None:
    said = refusal(lambda: grid.load_scale(SCALES, "lptop"))
    assert said == "config: scale = 'lptop': expected one of laptop, paper, smoke, study"


@pytest.fixture
def mistake(tmp_path: Path) -> Callable[..., str]:
    """What a scale file with this text, or of one experiment with these parts, says, without the name of the file."""

    def said(text: str | None = None, defaults: Any = None, experiment: Any = None, **axes: Any) -> str:
        plane = {"about": "", "grid": axes, **(experiment or {})}
        whole = {"about": "", "defaults": {**SMALL, **(defaults or {})}, "experiments": {"plane": plane}}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(whole) if text is None else text)
        lines = refusal(lambda: grid.load_scale(tmp_path, "mine")).splitlines()
        assert all(line.startswith(f"{tmp_path}/mine.yaml: ") for line in lines)
        return "\n".join(line.removeprefix(f"{tmp_path}/mine.yaml: ") for line in lines)

    return said


NO_RUNS = "experiments.plane: no runs: a list in its grid or cases is empty; fill it or leave it out"
NO_CASES = "experiments.plane: no runs: cases is empty; fill it or leave it out"


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        (
            {"device": "cpu"},
            "experiments.plane.device: unknown key here; it stands in config/config.yaml, or follows --config",
        ),
        (
            {"experiment": {"lr": 1}},
            "experiments.plane.lr: unknown key here; it is a setting of runs: defaults or an experiment of a file of "
            "config/scales",
        ),
        ({"defaults": {"step": 3}}, "defaults.step: unknown key; did you mean 'steps'?"),
        ({"lr2": 3}, "experiments.plane.lr2: unknown key; did you mean 'lr'?"),
        ({"experiment": {"cases": [{"sed": 1}]}}, "experiments.plane.sed: unknown key; did you mean 'seed'?"),
        ({"experiment": {"gird": {}}}, "experiments.plane.gird: unknown key; did you mean 'grid'?"),
        ({"experiment": {"grid": [1]}}, "experiments.plane.grid = [1]: input should be a valid dictionary"),
        (
            {"steps": "many"},
            "experiments.plane: steps = 'many': input should be a valid integer, unable to parse string as an integer",
        ),
        (
            {"lr": "0,1"},
            "experiments.plane: lr = '0,1': input should be a valid number, unable to parse string as a number",
        ),
        ({"lr": None}, "experiments.plane: lr = None: input should be a valid number"),
        ({"lr": 0}, "experiments.plane: lr = 0: input should be greater than 0"),
        ({"l2": [0, -1]}, "experiments.plane: l2 = -1: input should be greater than or equal to 0"),
        ({"l2": math.inf}, "experiments.plane: l2 = inf: input should be a finite number"),
        ({"momentum": 1}, "experiments.plane: momentum = 1: input should be less than 1"),
        (
            {"optimizer": ["sgd", "sdg"]},
            "experiments.plane: optimizer = 'sdg': "
            "input should be 'sgd', 'momentum', 'nesterov', 'adam', 'rmsprop' or 'adamw'",
        ),
        (
            {"affine_lr": "share"},
            "experiments.plane: affine_lr = 'share': expected a number greater than 0, or 'shared'",
        ),
        (
            {"projected": True, "normalization": "none"},
            "experiments.plane: projected = true with normalization = none would change the function that the network "
            "computes; use a normalization, or projected = false",
        ),
        (
            {"rescaled_at_drop": True, "lr_drop": 4, "optimizer": "adam"},
            "experiments.plane: rescaled_at_drop = true needs an lr_drop other than 1, optimizer = sgd and projected = "
            "false (other optimizers remember gradients of the old norm, projected weights have norm 1); set it to "
            "false",
        ),
        (
            {"affine_l2": "first"},
            "experiments.plane: affine_l2 = 'first': input should be 'none', 'hidden', 'last' or 'all'",
        ),
        (
            {"resolution": 10},
            "experiments.plane: resolution = 10: fashion-mnist has 28 pixels a side; use 28 or 14",
        ),
        (
            {"dataset": "cifar10", "resolution": 28},
            "experiments.plane: resolution = 28: cifar10 has 32 pixels a side; use 32 or 16",
        ),
        (
            {"train_size": 55_001},
            "experiments.plane: train_size = 55001 is more than the 55000 images there are; lower it",
        ),
        (
            {"test_size": 10_001},
            "experiments.plane: test_size = 10001 is more than the 10000 images there are; lower it",
        ),
        (
            {"validation_size": 5001},
            "experiments.plane: validation_size = 5001: input should be less than or equal to 5000",
        ),
        ({"batch_size": 97}, "experiments.plane: batch_size = 97 is more than the 96 images there are; lower it"),
        (
            {"statistics_size": 97},
            "experiments.plane: statistics_size = 97 is more than the 96 images there are; lower it",
        ),
        ({"lr": []}, NO_RUNS),
        ({"experiment": {"cases": [{"lr": []}]}}, NO_RUNS),
        ({"experiment": {"cases": []}}, NO_CASES),
        ({"text": "based_on: mine\n"}, "based_on = 'mine': expected one of the other scales, not in a circle"),
        ({"text": ""}, "expected the keys about, defaults and experiments, found None"),
        ({"text": "- smoke\n"}, "expected the keys about, defaults and experiments, found ['smoke']"),
        ({"text": "about: ''\ndefaults: {}\n"}, "experiments: missing; set it"),
        (
            {"text": "about: [\n"},
            "line 2: not valid YAML: expected the node content, but found '<stream end>'",
        ),
        ({"text": "about: a: b\n"}, "line 1: not valid YAML: mapping values are not allowed here"),
        ({"text": "about: '\x07'\n"}, "not a text file; restore it"),
    ],
)
def test_a_mistake_in_a_scale(mistake: Callable[..., str], parts: dict[str, Any], sentence: str) -> None:
    assert mistake(**parts) == sentence


def test_the_largest_sizes_are_no_mistake() -> None:
    run = make_run(
        train_size=55_000, validation_size=5_000, test_size=10_000, batch_size=55_000, statistics_size=55_000
    )
    assert run.train_size == 55_000


def test_a_missing_setting(mistake: Callable[..., str]) -> None:
    text = yaml.safe_dump(
        {
            "about": "",
            "defaults": {key: SMALL[key] for key in SMALL if key != "lr"},
            "experiments": {"plane": {"about": ""}},
        }
    )
    assert mistake(text) == "experiments.plane: lr: missing; set it"


def test_several_mistakes_are_told_at_once(mistake: Callable[..., str]) -> None:
    assert mistake(defaults={"step": 3, "momentun": 1}, lr2=1).splitlines() == [
        "defaults.momentun: unknown key; did you mean 'momentum'?",
        "defaults.step: unknown key; did you mean 'steps'?",
        "experiments.plane.lr2: unknown key; did you mean 'lr'?",
    ]
    assert mistake(steps=0, l2=[-1, 0, -2]).splitlines() == [
        "experiments.plane: l2 = -1: input should be greater than or equal to 0",
        "experiments.plane: steps = 0: input should be greater than 0",
        "experiments.plane: l2 = -2: input should be greater than or equal to 0",
    ]


def test_mistakes_of_every_experiment_are_told_and_a_wrong_default_once(mistake: Callable[..., str]) -> None:
    experiments = {
        "plane": {"about": "", "grid": {"l2": [0, -1]}},
        "symmetry": {"about": "", "grid": {"lr": 0}},
    }
    text = yaml.safe_dump({"about": "", "defaults": {**SMALL, "steps": 0}, "experiments": experiments})
    assert mistake(text).splitlines() == [
        "experiments.plane: steps = 0: input should be greater than 0",
        "experiments.plane: l2 = -1: input should be greater than or equal to 0",
        "experiments.symmetry: lr = 0: input should be greater than 0",
    ]


@pytest.mark.parametrize("key", ["lr", "l2", "seed", "norm_eps", "optimizer"])
@pytest.mark.parametrize("value", [True, False])
def test_true_is_not_a_number(key: str, value: bool) -> None:
    with pytest.raises(ValidationError, match=f"{key} = {str(value).lower()}: expected a number or a name"):
        make_run(**{key: value})


def test_negative_zero_is_zero() -> None:
    assert make_run(l2=-0.0) == make_run(l2=0) == make_run(l2=0.0)
    assert make_run(l2=-0.0).run_id == make_run(l2=0).run_id


def test_names_of_large_numbers_have_no_plus() -> None:
    run = make_run(lr=1e7, l2=2e9)
    assert "lr_1e07-l2_2e09-" in run.run_id and "+" not in run.shard_id


def test_a_batch_of_one_has_no_statistics() -> None:
    with pytest.raises(ValidationError, match="batch_size = 1 has no batch statistics"):
        make_run(batch_size=1)
    make_run(batch_size=1, normalization="layer")


def test_epsilon_is_finite() -> None:
    with pytest.raises(ValidationError, match="norm_eps"):
        make_run(norm_eps=float("inf"))
