"""Hashes of code.

Snakemake plans a job again when the code that it runs has changed: `sources` hashes the files. A run trains again when
the code that decides its result has: its key is of the import closure of the training module within the folder of its
study, as syntax trees without what cannot change a result. `code.lock` in the folder gives a tree the key of another
one that trains the same numbers (certify.py); an unknown tree is its own key.
"""

import ast
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from effective_lr.engine.study import STUDIES, Study
from effective_lr.errors import UserError

PACKAGE = Path(__file__).parent.parent
LEFT_OUT = {"ctx", "kind", "type_comment", "type_params", "type_ignores"}  # of nodes: no part of what a program does
WORDS = {"description", "change"}  # keywords of settings that only a reader sees
IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]+(\([^)]*\)|.*)|import[ \t]+(.*))", re.MULTILINE)


def imports(path: Path) -> list[str]:
    """The modules that a file names in its import statements, wherever they stand; also those that are names in one."""
    found: list[str] = []
    for module, names, modules in IMPORT.findall(path.read_text(encoding="utf-8")):
        if module.startswith("."):
            raise UserError(f"{path}: relative import of {names}; write the absolute name")
        words = [word.split()[0] for word in re.sub(r"#.*|[()]", "", names or modules).split(",") if word.strip()]
        found += [module, *(f"{module}.{word}" for word in words)] if module else words
    return found


def closure(modules: Iterable[str], root: Path = PACKAGE) -> list[Path]:
    """The files of modules and of all first-party modules that they import, directly or not, in functions too; sorted.
    Names that are no module of the package count for nothing."""
    found: set[Path] = set()
    seen, waiting = set(), list(modules)
    while waiting:
        module = waiting.pop()
        if module in seen or not module.startswith(f"{root.name}."):
            continue
        seen.add(module)
        path = root.joinpath(*module.split(".")[1:])
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file() and file not in found:
                found.add(file)
                waiting += imports(file)
    return sorted(found)


def sources(modules: Iterable[str], root: Path = PACKAGE) -> str:
    """A hash of modules of the package, by their names in it, with all that they import. A study need not have all of
    them."""
    digest = hashlib.sha256()
    for path in closure([f"{root.name}.{module}" for module in modules], root):
        digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def training_files(study: Study, studies: Path = STUDIES) -> list[Path]:
    """The files that decide the results of a study: its training module, and what that imports of its folder."""
    files = closure([f"{studies.parent.name}.studies.{study.name}.training"], studies.parent)
    return [path for path in files if path.is_relative_to(studies / study.name)]


def training_tree(study: Study, studies: Path = STUDIES) -> str:
    """A hash of the syntax trees of these files."""
    return tree_hash(training_files(study, studies), studies / study.name)


def training_key(study: Study, studies: Path = STUDIES) -> str:
    """The key of a study's training code: that of the first code that was found to give the same results."""
    tree = training_tree(study, studies)
    return read_lock(studies / study.name / "code.lock").get(tree, tree)


def read_lock(path: Path) -> dict[str, str]:
    """The keys of certified syntax trees by their hashes."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return dict(line.split()[:2] for line in lines if line and not line.startswith("#"))


def tree_hash(files: Iterable[Path], root: Path) -> str:
    """A hash of the syntax trees of files, which names them from `root`."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(root)}\n{canonical(ast.parse(path.read_text(encoding='utf-8')))}\n".encode())
    return digest.hexdigest()[:16]


def canonical(node: Any) -> str:
    """A syntax tree as text that is the same in every version of Python, without docstrings and without what only a
    reader sees: descriptions of settings and messages of errors.

    `ast.dump` prints what a version added to its nodes, so its text differs between 3.11, 3.12 and 3.13.
    """
    if isinstance(node, list):
        return "[" + ",".join(canonical(part) for part in node) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: value for name, value in ast.iter_fields(node) if value is not None and name not in LEFT_OUT}
    match node:
        case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
            if ast.get_docstring(node, clean=False) is not None:
                fields["body"] = node.body[1:]
        case ast.Raise(exc=ast.Call(func=func)):
            fields["exc"] = func
        case ast.Call(func=ast.Name(id="setting")):
            fields["args"] = []  # the description and the source
            fields["keywords"] = [word for word in node.keywords if word.arg not in {*WORDS, "source"}]
        case ast.Call(func=ast.Name(id="Field")):
            fields["keywords"] = [word for word in node.keywords if word.arg not in WORDS]
    inside = ",".join(f"{name}={canonical(value)}" for name, value in fields.items() if value != [])
    return f"{type(node).__name__}({inside})"
