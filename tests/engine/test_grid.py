"""From the files of config/ to runs and jobs: what a grid means, what keeps its name, and how a mistake reads."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from effective_lr.engine import grid
from effective_lr.engine.resources import CPU_SPEED
from effective_lr.errors import UserError
from effective_lr.studies.normalization.settings import Run
from shared import ROOT, SMALL, STUDY, make_run

AXES: dict[str, st.SearchStrategy[Any]] = {
    "normalization": st.sampled_from(["batch", "weight", "layer"]),
    "optimizer": st.sampled_from(["sgd", "nesterov", "adam"]),
    "projected": st.booleans(),
    "resolution": st.sampled_from([14, 28]),  # each needs data of its own
    "steps": st.sampled_from([7, 20_000]),
    "lr": st.floats(1e-6, 1e3),
    "l2": st.floats(0, 1e3),
    "affine_lr": st.floats(1e-6, 1) | st.just("shared"),
    "seed": st.integers(0, 9),
}
GRIDS = st.fixed_dictionaries({}, optional={key: st.lists(axis, min_size=1, max_size=3) for key, axis in AXES.items()})
CASES = st.lists(st.fixed_dictionaries({}, optional=AXES), min_size=1, max_size=3)
EXPANSIONS = st.tuples(GRIDS.filter(lambda axes: math.prod(map(len, axes.values())) < 50), CASES)


def expand(axes: dict[str, Any], cases: list[dict[str, Any]]) -> list[Run]:
    experiment = grid.Experiment(about="", grid=axes, cases=cases)
    return grid.expand(grid.Scale(about="", defaults=SMALL, experiments={"mine": experiment}), Run)["mine"]


@given(EXPANSIONS)
def test_an_experiment_is_every_combination_of_its_grid_with_every_case_once(expansion: Any) -> None:
    axes, cases = expansion
    combinations = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    expected = {make_run(**{**values, **case}) for values in combinations for case in cases}
    runs = expand(axes, cases)
    assert set(runs) == expected
    assert len(runs) == len(expected) == len({run.run_id for run in runs})  # different runs have different names
    in_lists = expand({}, [{**axes, **{key: [value] for key, value in case.items()}} for case in reversed(cases)])
    assert set(in_lists) == expected  # a list in a case is expanded, too; the order does not matter


@given(st.sampled_from(["lr", "l2", "affine_lr", "initial_norm"]), st.integers(1, 1000))
def test_the_spelling_of_a_number_does_not_matter(key: str, number: int) -> None:
    # YAML reads 1e-3, without a point, as text.
    runs = [make_run(**{key: spelling}) for spelling in (number, float(number), str(number), f"{number:.3e}")]
    assert len({run.run_id for run in runs}) == len({grid.runs_hash([run]) for run in runs}) == 1
    assert len({make_run(l2=zero).run_id for zero in (0, 0.0, -0.0, "0", "0.0")}) == 1


@given(st.dictionaries(st.sampled_from("abc"), EXPANSIONS, min_size=1), st.randoms(use_true_random=False))
def test_each_run_is_in_one_job_with_others_of_the_same_figures_and_data(grids: Any, random: Any) -> None:
    """`figures` shares runs between experiments, and b and c are shown together."""
    experiments = {name: expand(*expansion) for name, expansion in grids.items()}
    if len(experiments) > 1:
        first, second, *_ = experiments
        experiments[second] = list(dict.fromkeys([*experiments[second], *experiments[first][:3]]))
    figures = {"a": ["plane"], "b": ["plane", "late"], "c": ["plane", "late"]}
    study = replace(STUDY, operations=lambda run: CPU_SPEED)
    jobs = grid.jobs(study, experiments, figures)
    assert sorted(run.run_id for run in chain(*jobs.values())) == sorted(r.run_id for r in grid.unique(experiments))
    for name, runs in jobs.items():
        assert len({STUDY.data(run) for run in runs}) == 1
        shown = {frozenset(f for e, own in experiments.items() if run in own for f in figures[e]) for run in runs}
        assert len(shown) == 1
        experiment, number = name.rsplit("-", 1)
        assert any(run in experiments[experiment] for run in runs) and int(number) >= 1
    shuffled = {name: random.sample(runs, len(runs)) for name, runs in experiments.items()}
    assert grid.jobs(study, shuffled, figures) == jobs


def test_jobs_are_filled_to_about_a_minute_and_grow_where_there_is_too_much_for_eight() -> None:
    def minutes(runs: int, seconds: float) -> list[float]:
        """Of each job, where a run takes so many seconds."""
        study = replace(STUDY, operations=lambda run: seconds * CPU_SPEED)
        jobs = grid.jobs(study, {"mine": [make_run(seed=seed) for seed in range(runs)]}, {"mine": []})
        return [len(own) * seconds / 60 for own in jobs.values()]

    assert minutes(30, 1) == [0.5]
    assert minutes(12, 20) == [1, 1, 1, 1]
    assert minutes(3, 80) == [4 / 3] * 3
    assert minutes(400, 60) == [50] * 8
    assert minutes(2, 0) == [0]


def test_tiny_jobs_are_put_together_until_they_are_not_tiny() -> None:
    def sizes(*seconds: float) -> list[int]:
        """Of each job, where each of the runs is shown by another figure."""
        study = replace(STUDY, operations=lambda run: seconds[run.seed] * CPU_SPEED)
        experiments = {f"e{seed}": [make_run(seed=seed)] for seed in range(len(seconds))}
        return sorted(map(len, grid.jobs(study, experiments, {name: [name] for name in experiments}).values()))

    tiny = grid.TINY_SECONDS
    assert sizes(tiny, tiny, tiny) == [1, 1, 1]
    assert sizes(*[tiny / 2] * 5) == [1, 2, 2]
    assert sizes(0, 0, tiny, 60) == [1, 1, 2]


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        action()
    return str(error.value)


def test_the_config_is_that_of_the_file_and_what_is_chosen_goes_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root, own = tmp_path / "root/config/config.yaml", tmp_path / "config/config.yaml"
    root.parent.mkdir(parents=True)
    root.write_text("scale: smoke\ndevice: cpu\n")
    assert grid.load_config(tmp_path / "root", {}) == grid.Config(scale="smoke", device="cpu")
    own.parent.mkdir()
    own.write_text("scale: laptop\n")  # of a working directory elsewhere
    assert grid.load_config(tmp_path / "root", {}) == grid.Config(scale="laptop")
    assert grid.load_config(tmp_path / "root", {"scale": "study"}).scale == "study"
    own.write_text("scale: [\n")
    assert f"{own}: line 2" in refusal(lambda: grid.load_config(tmp_path / "root", {}))
    own.unlink()
    root.unlink()
    assert f"{root}: [Errno 2] No such file" in refusal(lambda: grid.load_config(tmp_path / "root", {}))


def test_a_mistake_in_the_config_names_the_key_and_what_was_expected() -> None:
    mistakes: list[tuple[dict[str, Any], list[list[str]]]] = [
        ({"scael": "smoke"}, [["scael: unknown key", "config/README.md"]]),
        ({"scale": 3}, [["scale = 3", "string"]]),
        ({"retrain": "maybe", "device": "tpu"}, [["device = 'tpu'", "'cuda'"], ["retrain = 'maybe'", "boolean"]]),
    ]
    for chosen, expected in mistakes:
        lines = refusal(lambda chosen=chosen: grid.load_config(ROOT, chosen)).splitlines()
        assert len(lines) == len(expected)
        for line, parts in zip(lines, expected, strict=True):
            assert line.startswith("config: ") and all(part in line for part in parts), line


def test_a_scale_based_on_another_states_what_differs(tmp_path: Path) -> None:
    plane = {"about": "", "grid": {"lr": [0.1, 0.2], "l2": 0}}
    base = {"about": "", "defaults": SMALL, "experiments": {"plane": plane}}
    other = {"based_on": "base", "defaults": {"steps": 7}, "experiments": {"plane": {"grid": {"lr": [0.3]}}}}
    for name, content in {"base": base, "other": other}.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    assert grid.load_scale(tmp_path, "other", STUDY)[1] == {"plane": [make_run(steps=7, lr=0.3, l2=0)]}
    assert len(grid.load_scale(tmp_path, "base", STUDY)[1]["plane"]) == 2
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({**base, "based_on": "other"}))
    assert "other.yaml: based_on leads back" in refusal(lambda: grid.load_scale(tmp_path, "other", STUDY))
    (tmp_path / "base.yaml").write_text("about: [\n")  # the mistake is named where it stands
    assert f"{tmp_path}/base.yaml: line 2" in refusal(lambda: grid.load_scale(tmp_path, "other", STUDY))


MISTAKES_OF_A_SCALE: list[tuple[dict[str, Any], list[str]]] = [
    ({"device": "cpu"}, ["experiments.plane: device: unknown key", "config/README.md"]),
    ({"experiment": {"cases": [{"sed": 1}]}}, ["experiments.plane: sed: unknown key"]),
    ({"experiment": {"gird": {}}}, ["experiments.plane.gird: unknown key"]),
    ({"steps": "many"}, ["experiments.plane", "steps = 'many'", "integer"]),
    ({"l2": [0, -1]}, ["experiments.plane", "l2 = -1", "greater than or equal to 0"]),
    ({"l2": True}, ["experiments.plane", "l2 = true", "number"]),
    ({"optimizer": ["sgd", "sdg"]}, ["experiments.plane", "optimizer = 'sdg'", "'sgd'", "'adamw'"]),
    ({"affine_lr": "share"}, ["experiments.plane", "affine_lr = 'share'", "'shared'"]),
    ({"lr": []}, ["experiments.plane", "no runs", "empty"]),
    ({"experiment": {"cases": [{"lr": []}]}}, ["experiments.plane", "no runs", "empty"]),
    ({"experiment": {"cases": []}}, ["experiments.plane", "cases", "at least 1"]),
    ({"text": "based_on: mine\n"}, ["based_on leads back to itself"]),
    ({"text": ""}, ["about, defaults and experiments", "None"]),
    ({"text": "about: ''\ndefaults: {}\n"}, ["experiments", "missing"]),
    ({"text": "about: [\n"}, ["line 2"]),
    ({"text": "about: '\x07'\n"}, ["unacceptable character"]),
    ({"text": "about: ''\ndefaults:\n  lr: 1\n  l2: 0\n  lr: 2\n"}, ["line 5", "'lr'", "twice"]),
]


def problems(folder: Path, text: str | None = None, experiment: Any = None, **axes: Any) -> Any:
    """What is wrong with a scale file of this text, or of one experiment with these parts, without the file's name."""
    plane = {"about": "", "grid": axes, **(experiment or {})}
    whole = {"about": "", "defaults": SMALL, "experiments": {"plane": plane}}
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(whole) if text is None else text)
    lines = refusal(lambda: grid.load_scale(folder, "mine", STUDY)).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    return [line.removeprefix(f"{path}: ") for line in lines]


def test_a_mistake_in_a_scale_is_one_sentence(tmp_path: Path) -> None:
    for parts, expected in MISTAKES_OF_A_SCALE:
        [line] = problems(tmp_path, **parts)
        assert all(part in line for part in expected), line
    defaults = {key: value for key, value in SMALL.items() if key != "lr"}
    text = yaml.safe_dump({"about": "", "defaults": defaults, "experiments": {"plane": {"about": ""}}})
    [line] = problems(tmp_path, text)
    assert line.startswith("experiments.plane: lr: missing")


def test_mistakes_of_every_experiment_are_named_and_a_wrong_default_once(tmp_path: Path) -> None:
    experiments = {"plane": {"about": "", "grid": {"l2": [0, -1, -2]}}, "symmetry": {"about": "", "grid": {"lr": 0}}}
    defaults = {**SMALL, "steps": 0, "step": 3}
    text = yaml.safe_dump({"about": "", "defaults": defaults, "experiments": experiments})
    where = [line.split(": input")[0].split("; config")[0] for line in problems(tmp_path, text)]
    assert sorted(where) == [
        "experiments.plane: l2 = -1",
        "experiments.plane: l2 = -2",
        "experiments.plane: step: unknown key",
        "experiments.plane: steps = 0",
        "experiments.symmetry: lr = 0",
    ]
