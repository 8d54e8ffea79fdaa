"""`make` on machines that lack something, and the agreement of the files that name dependencies.

Stubs on PATH play the machine and log how they are called; no test installs anything.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from effective_lr.engine.grid import load_config
from shared import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()
MAKE = shutil.which("make") or "make"
RUN = "python -m effective_lr run"

TOOLS = (
    "bash",
    "basename",
    "cat",
    "chmod",
    "dirname",
    "env",
    "grep",
    "head",
    "ls",
    "mkdir",
    "rm",
    "sed",
    "sha256sum",
    "tee",
)
LATEX = ("latexmk", "pdflatex", "kpsewhich")
# The stubs behave well, except for what the variables of a test name as broken.
STUBS = {
    "python3": """
        case "$*" in
            *version_info*) [ "$BROKEN" = python ] && minor=10 || minor=11
                "$REAL_PYTHON" -IS -c "import sys; sys.version_info = (3, $minor, 2); $2" ;;
            *get_platform*) echo cpython-311 linux-x86_64 ;;
            --version) echo Python 3.10.2 ;;
            *ensurepip*) [ "$BROKEN" != ensurepip ] ;;
            "-m venv "*) mkdir -p "$3/bin"; cat "$0" | tee "$3/bin/pip" >"$3/bin/python"
                echo "VIRTUAL_ENV=\"$PWD/$3\"" >"$3/bin/activate"
                chmod +x "$3/bin/pip" "$3/bin/python" ;;
            *"pip install"*) [ "$BROKEN" != install ] ;;
        esac""",
    "id": 'echo "${WHO/sudoer/1000}"',
    "sudo": '[ "$WHO" = sudoer ] && shift && "$@"',
    "apt-get": 'echo "apt-get at work"; [ "$BROKEN" != dataset ] || [[ "$*" != *dataset* ]]',
    "find": '[ "$BROKEN" = dataset ] || echo data/train-images-idx3-ubyte.gz',
    "python": '[ "$BROKEN" != training ]',  # of the virtual environment
    **dict.fromkeys(("ruff", "mypy", "snakefmt", "snakemake", "pytest", "jupyter", "jupytext-config", *LATEX), ""),
}


@dataclass
class Machine:
    """A checkout in a temporary folder, on a machine that has the stubs and nothing else."""

    root: Path

    def make(self, *words: str, who: str = "1000", broken: str = "") -> subprocess.CompletedProcess[str]:
        """Run make as root ("0"), as a "sudoer", or as another user id, with stdout and stderr in one."""
        return self.run(MAKE, *words, who=who, broken=broken)

    def run(self, *command: str, who: str, broken: str = "", cwd: str = ".") -> subprocess.CompletedProcess[str]:
        (self.root / "calls").unlink(missing_ok=True)
        machine = {"PATH": str(self.root / "bin"), "CALLS": str(self.root / "calls"), "REAL_PYTHON": sys.executable}
        return subprocess.run(
            command,
            cwd=self.root / cwd,
            env={**machine, "LC_ALL": "C", "WHO": who, "BROKEN": broken},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def calls(self, program: str = "") -> list[str]:
        """The calls of the last make, of all stubs or one."""
        return [call for call in (self.root / "calls").read_text().splitlines() if call.startswith(program)]

    def without(self, *programs: str) -> "Machine":
        for program in programs:
            (self.root / "bin" / program).unlink()
        return self


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    for file in ("Makefile", "workflow/setup.sh", ".ci/run"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    (tmp_path / "requirements.lock").write_text("torch==2.0\n")
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or pytest.fail(f"{tool} is missing"))
    for name, body in STUBS.items():
        stub = tmp_path / "bin" / name
        stub.write_text(f'#!{shutil.which("bash")}\necho "{name} $*" >>"$CALLS"\n{body}\n')
        stub.chmod(0o755)
    return Machine(tmp_path)


def test_make_sets_up_and_builds(machine: Machine) -> None:
    done = machine.make()
    assert done.returncode == 0, done.stdout
    assert machine.calls("python3 -m") == [
        "python3 -m venv .venv",
        "python3 -m pip install --disable-pip-version-check --require-hashes -r requirements.lock",
    ]
    assert machine.calls()[-1] == f"{RUN} --cores all"
    assert done.stdout.splitlines()[-1].endswith("paper/build/laptop/main.pdf")


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (("figure_2",), f"{RUN} figure_2 --cores all"),
        (("table_1", "SCALE=smoke", "CORES=3"), f"{RUN} table_1 --cores 3 --config scale=smoke"),
        (("only", "ITEM=plane", "METRICS=published"), f"{RUN} plane --cores all --config metrics=published"),
        (("notebooks",), f"{RUN} notebooks --cores all"),
        (("explore", "METRICS=published"), f"{RUN} explore --cores all --config metrics=published"),
        (("retrain", "SCALE=study"), f"{RUN} --cores all --config scale=study retrain=true --forcerun train"),
        (("plan", "STUDY=norms", "CORES=2"), "python -m effective_lr plan --scale  --study norms --cores 2"),
        (("why", "TARGET=plane"), "python -m effective_lr why --scale  --study  --metrics  --target plane"),
        (
            ("trace", "NUMBER=slope/sgd", "METRICS=published"),
            "python -m effective_lr trace --scale  --study  --metrics published --number slope/sgd",
        ),
        (
            ("runs", "WHERE=lr<0.01 device='a b'", "CSV=x"),
            "python -m effective_lr runs --scale  --study  --metrics  --where lr<0.01 device='a b' --csv x",
        ),
        (("watch", "SCALE=smoke"), "python -m effective_lr watch --scale smoke --study "),
        (("pages",), "python benchmarks/normalization.py figure"),
        (
            ("push-runs", "TO=host:runs", "SCALE=study"),
            "python -m effective_lr push --scale study --study  --to host:runs",
        ),
        (("pull-runs", "FROM=/mnt/runs"), "python -m effective_lr pull --scale  --study  --from /mnt/runs"),
        (("unlock",), "snakemake --unlock"),
        (("test-slow",), "pytest -m slow"),
    ],
)
def test_targets(machine: Machine, words: tuple[str, ...], call: str) -> None:
    (machine.root / "notebooks").mkdir()  # it is not what `make notebooks` makes
    assert machine.make(*words).returncode == 0
    assert machine.calls()[-1].startswith(call)


def test_the_paper_lies_where_the_workflow_puts_it(machine: Machine) -> None:
    for words, config in [((), {}), (("SCALE=smoke",), {"scale": "smoke"}), (("METRICS=published",), {})]:
        chosen = load_config({**config, **({"metrics": "published"} if "METRICS=published" in words else {})})
        assert f"paper/build/{chosen.results}/main.pdf" in machine.make("paper", *words).stdout
        assert f"paper/build/{chosen.results}/explorer.html" in machine.make("explore", *words).stdout


def test_jupyter_opens_text_as_notebooks(machine: Machine) -> None:
    assert machine.make("lab").returncode == 0
    assert machine.calls()[-1].startswith("jupyter lab ")
    assert any(call.endswith("set-default-viewer python") for call in machine.calls("jupytext-config"))


def test_ci_runs_make_test_which_ends_with_pytest(machine: Machine) -> None:
    (machine.root / "bin" / "make").symlink_to(MAKE)
    assert machine.run("../.ci/run", who="1000", cwd="bin").returncode == 0
    *checks, last = machine.calls()
    assert last.startswith("pytest ")
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    for call, hook in zip(
        checks[-len(hooks) :], hooks, strict=True
    ):  # the linters of each commit are those of the test
        assert call.startswith(hook["entry"])


@pytest.mark.parametrize("contents", ["torch==2.0\n", "torch==2.1\n"])
def test_lock_is_installed_again_only_when_its_contents_change(machine: Machine, contents: str) -> None:
    machine.make()
    changed = contents != (machine.root / "requirements.lock").read_text()
    (machine.root / "requirements.lock").write_text(contents)
    os.utime(machine.root / "requirements.lock", (4e9, 4e9))
    assert machine.make().returncode == 0
    assert len(machine.calls("python3 -m pip install")) == changed


def test_interrupted_installation_is_taken_up_again(machine: Machine) -> None:
    machine.make()
    (machine.root / "requirements.lock").write_text("torch==2.1\n")
    assert machine.make(broken="install").returncode != 0
    (machine.root / "requirements.lock").write_text("torch==2.0\n")  # what the first stamp said
    machine.make()
    assert machine.calls("python3 -m pip install")


def test_shared_environment(machine: Machine) -> None:
    machine.make(f"VENV={machine.root}/shared")
    assert (machine.root / "shared" / "bin" / "pip").exists()
    assert not (machine.root / ".venv").exists()


def test_moved_environment(machine: Machine) -> None:
    machine.make()
    (machine.root / ".venv").rename(machine.root / "moved")
    done = machine.make("VENV=moved")
    assert done.returncode != 0
    assert "rm -r moved" in done.stdout


def test_environment_whose_python_is_gone(machine: Machine) -> None:
    machine.make()
    (machine.root / ".venv" / "bin" / "python").write_text("#!/gone/bin/python\n")
    done = machine.make()
    assert done.returncode != 0
    assert "rm -r .venv" in done.stdout


@pytest.mark.parametrize(("python", "found"), [("python3", "Python 3.10.2"), ("python3.99", "missing")])
def test_no_python(machine: Machine, python: str, found: str) -> None:
    done = machine.make(f"PYTHON={python}", broken="python")
    assert done.returncode != 0
    assert python in done.stdout and found in done.stdout and "make PYTHON=" in done.stdout
    assert not (machine.root / ".venv").exists()


def test_no_venv_module(machine: Machine) -> None:
    done = machine.make(broken="ensurepip")
    assert done.returncode != 0
    assert "apt-get install -y python3-venv" in done.stdout
    assert machine.make(broken="ensurepip", who="0").returncode == 0
    assert machine.calls("apt-get install")[0].endswith(" python3-venv")


PACKAGES = "latexmk texlive-latex-recommended"  # and more


def test_no_latex_and_no_root(machine: Machine) -> None:
    done = machine.without(*LATEX).make()
    assert done.returncode != 0
    assert "LaTeX is missing" in done.stdout and f"apt-get install -y --no-install-recommends {PACKAGES}" in done.stdout
    assert not machine.calls("apt-get")


def test_latex_without_a_package(machine: Machine) -> None:
    (machine.root / "bin" / "kpsewhich").write_text("#!/bin/sh\nexit 1\n")
    assert "LaTeX is missing" in machine.make().stdout


def test_tectonic_suffices(machine: Machine) -> None:
    machine.without(*LATEX)
    shutil.copy(machine.root / "bin" / "ruff", machine.root / "bin" / "tectonic")
    assert machine.make().returncode == 0


def test_system_no_leaves_the_system_alone(machine: Machine) -> None:
    done = machine.without(*LATEX).make("SYSTEM=no", who="0", broken="dataset")
    assert done.returncode == 0, done.stdout
    assert not machine.calls("apt-get")
    assert "LaTeX is missing" in done.stdout


@pytest.mark.parametrize(("who", "prefix"), [("0", ""), ("sudoer", "sudo -n ")])
def test_apt_get_is_announced_before_it_runs(machine: Machine, who: str, prefix: str) -> None:
    done = machine.without(*LATEX).make(who=who)
    assert done.returncode == 0, done.stdout
    shown = [line for line in done.stdout.splitlines() if line.startswith("+ ") or line == "apt-get at work"]
    assert shown[0] == f"+ {prefix}apt-get update" and shown[1] == shown[3] == "apt-get at work"
    assert shown[2].startswith(f"+ {prefix}env ") and PACKAGES in shown[2]


def test_no_package_with_fashion_mnist_is_no_error(machine: Machine) -> None:
    done = machine.make(who="0", broken="dataset")
    assert machine.calls("apt-get install")[-1].endswith(" dataset-fashion-mnist")
    assert done.returncode == 0
    assert "the workflow will download it" in done.stdout


@pytest.fixture
def capsule(machine: Machine) -> Machine:
    """A machine whose checkout is a time capsule."""
    (machine.root / "wheels").mkdir()
    (machine.root / "wheels" / "made-for").write_text("cpython-311 linux-x86_64\n")
    sums = subprocess.run(["sha256sum", "requirements.lock"], cwd=machine.root, capture_output=True, check=True)
    (machine.root / "SHA256SUMS").write_bytes(sums.stdout)
    return machine


def test_a_capsule_needs_no_network(capsule: Machine) -> None:
    assert capsule.make(who="0", broken="dataset").returncode == 0
    [install] = capsule.calls("python3 -m pip install")
    assert " --no-index --find-links wheels --require-hashes " in install
    assert not capsule.calls("apt-get")
    (capsule.root / "wheels" / "made-for").write_text("of another Python, once it is installed\n")
    assert capsule.make().returncode == 0


def test_a_capsule_that_was_changed_is_not_installed(capsule: Machine) -> None:
    (capsule.root / "requirements.lock").write_text("torch==2.1\n")
    done = capsule.make()
    assert done.returncode != 0 and "requirements.lock: FAILED" in done.stdout and "unpack it again" in done.stdout
    assert not capsule.calls("python3 -m pip")


def test_a_capsule_for_another_python(capsule: Machine) -> None:
    (capsule.root / "wheels" / "made-for").write_text("cpython-314 linux-x86_64\n")
    done = capsule.make()
    assert done.returncode != 0
    assert "cpython-314" in done.stdout and "cpython-311" in done.stdout and "make PYTHON=" in done.stdout
    assert not (capsule.root / ".venv").exists()


def test_a_capsule_without_latex_says_what_to_install(capsule: Machine) -> None:
    done = capsule.without(*LATEX).make(who="0")
    assert done.returncode != 0 and f"apt-get install -y --no-install-recommends {PACKAGES}" in done.stdout
    assert not capsule.calls("apt-get")
    assert capsule.make("SYSTEM=no", who="0").returncode == 0  # the PDF alone needs it


def test_a_failed_run_ends_without_the_place_of_a_paper(machine: Machine) -> None:
    done = machine.make(broken="training")
    assert done.returncode != 0 and "main.pdf" not in done.stdout


# Each line of the lock that is neither a comment nor a continuation, and the hashes that continue it.
ENTRIES = re.findall(r"^([^\s#].*?)((?: \\\n +--hash=sha256:[0-9a-f]{64})*)$", LOCK, re.MULTILINE)
PINS = [Requirement(line.rstrip(" \\")) for line, _ in ENTRIES if re.match(r"[\w.-]+==", line)]
DIRECT = [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["dev"]]


def test_lock_has_pins_with_hashes_and_no_index_address() -> None:
    assert [line for line, hashes in ENTRIES if not hashes] == []
    assert len(PINS) == len(ENTRIES)
    assert re.findall(r"https?://|index-url|find-links", LOCK) == []


@pytest.mark.parametrize("direct", DIRECT)
def test_lock_meets_pyproject(direct: str) -> None:
    wanted = Requirement(direct)
    pinned = [pin.specifier for pin in PINS if canonicalize_name(pin.name) == canonicalize_name(wanted.name)]
    assert pinned, f"{direct} is not in requirements.lock: type `make lock`"
    versions = [str(specifier).removeprefix("==") for specifier in pinned]
    assert all(wanted.specifier.contains(version) for version in versions), f"{versions}: type `make lock`"


def test_environment_adds_only_python_pip_and_latex_to_the_lock() -> None:
    *conda, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert {Requirement(entry).name for entry in conda} == {"python", "pip", "tectonic"}
    assert {Requirement(entry).name for entry in pip["pip"]} == {pin.name for pin in PINS}

    python = next(Requirement(entry).specifier for entry in conda if entry.startswith("python "))
    offered = [f"3.{minor}" for minor in range(100) if python.contains(f"3.{minor}.0")]
    assert offered
    assert len(offered) < 10, "no upper bound"
    assert all(SpecifierSet(PROJECT["project"]["requires-python"]).contains(version) for version in offered)
