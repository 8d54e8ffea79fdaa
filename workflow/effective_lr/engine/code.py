"""What trained results depend on in the code of a study, as one key that survives every edit that changes no result.

The code of a study is the import closure of its training module within its own folder. It is hashed as syntax trees,
without what cannot change a result: comments, formatting, docstrings, descriptions and sources of settings, messages of
errors, and the differences between the trees of Python's versions. `code.lock` in the folder gives a tree the key of
another one that was proven to train the same numbers bit for bit (certify.py); an unknown tree is its own key, and
trains anew.
"""

import ast
import atexit
import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from effective_lr.engine.study import STUDIES, Study
from effective_lr.errors import UserError

PACKAGE = Path(__file__).parent.parent
LEFT_OUT = {"ctx", "kind", "type_comment", "type_params", "type_ignores"}  # of nodes: no part of what a program does
WORDS = {"description", "change"}  # keywords of settings that only a reader sees


READER = f"{sys.version}\n{Path(__file__).read_text()}"  # what another one found in a text counts for nothing
_before: dict[str, Any] = {}  # what earlier starts found in a text, by the hash of both
_known: dict[str, Any] = {}  # what this one found, or took from them


def remember(path: Path) -> None:
    """Keep in a file, from one start to the next, what is found in source code: to parse all of it takes seconds."""
    with suppress(OSError, ValueError):  # not there, or cut short
        _before.update(json.loads(path.read_text()))

    def keep() -> None:
        if _known.keys() - _before.keys() and path.parent.is_dir():
            from effective_lr.engine.storage import whole_file  # imports pyarrow

            with whole_file(path) as part:
                part.write_text(json.dumps(_known))

    atexit.register(keep)


def _found(kind: str, text: str, find: Callable[[], Any]) -> Any:
    """What there is of a kind in a text: as found before, in this start or an earlier one, or found now."""
    key = f"{kind} " + hashlib.sha256(f"{READER}\n{text}".encode()).hexdigest()
    if key not in _known:
        _known[key] = _before[key] if key in _before else find()
    return _known[key]


def imports(path: Path) -> list[str]:
    """The modules that a file names in its import statements, wherever they stand; also those that are names in one."""
    text = path.read_text()
    try:
        return _found("imports", text, lambda: _imports(text))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _imports(text: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level or not node.module:
                what = ", ".join(alias.name for alias in node.names)
                raise UserError(f"line {node.lineno}: relative import of {what}; write its whole name")
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def module_file(module: str, root: Path) -> Path | None:
    """The file of a first-party module, or None where there is none of that name."""
    package, *names = module.split(".")
    if package != root.name:
        return None
    path = root.joinpath(*names)
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def closure(*starts: Path, root: Path = PACKAGE) -> list[Path]:
    """The files and all first-party files that they import, directly or not, in functions too; sorted."""
    found, waiting = set(starts), list(starts)
    while waiting:
        for module in imports(waiting.pop()):
            file = module_file(module, root)
            if file is not None and file not in found:
                found.add(file)
                waiting.append(file)
    return sorted(found)


def sources(modules: Iterable[str], root: Path = PACKAGE) -> str:
    """A hash of modules of the package with all that they import: a job is run again when what it runs has changed.

    Modules of studies that are not there count for nothing, since a study need not have them all.
    """
    names = list(modules)
    for name in names:
        if module_file(f"{root.name}.{name}", root) is None and not name.startswith("studies."):
            raise UserError(f"{name}: no such module in {root}")
    return sources_of([f"{root.name}.{name}" for name in names], root)


def sources_of(modules: Iterable[str], root: Path = PACKAGE) -> str:
    """The same for modules by their full names, among which those of other packages count for nothing."""
    starts = [file for name in modules if (file := module_file(name, root))]
    return tree_hash(closure(*starts, root=root), root, has_words=True)  # a page shows the description of a setting


def training_files(study: Study, studies: Path = STUDIES) -> list[Path]:
    """The files that decide the results of a study: its training module, and what that imports of its folder."""
    folder = studies / study.name
    return [path for path in closure(folder / "training.py", root=studies.parent) if path.is_relative_to(folder)]


def training_key(study: Study, studies: Path = STUDIES) -> str:
    """The key of a study's training code: that of the first code that is proven to give the same results."""
    tree = tree_hash(training_files(study, studies), studies / study.name)
    return read_lock(studies / study.name / "code.lock").get(tree, tree)


def read_lock(path: Path) -> dict[str, str]:
    """The keys of certified syntax trees by their hashes."""
    lines = path.read_text().splitlines() if path.exists() else []
    entries = [line.split(maxsplit=2) for line in lines if line.strip() and not line.startswith("#")]
    if any(len(entry) < 3 for entry in entries):
        raise UserError(f"{path}: expected lines of a tree, a key, and how that was certified; restore the file")
    return {tree: key for tree, key, _ in entries}


def tree_hash(files: Iterable[Path], root: Path, has_words: bool = False) -> str:
    """A hash of the syntax trees of files, which names them from `root`."""
    texts = {str(path.relative_to(root)): path.read_text() for path in files}

    def tree() -> str:
        digest = hashlib.sha256()
        for name, text in texts.items():
            digest.update(f"{name}\n{_canonical(text, has_words)}\n".encode())
        return digest.hexdigest()[:16]

    found: str = _found(f"tree {has_words}", repr(texts), tree)
    return found


@cache  # by the text: most hashes are of files that others have, too
def _canonical(text: str, has_words: bool) -> str:
    return canonical(ast.parse(text), has_words)


def canonical(node: Any, has_words: bool = False) -> str:
    """A syntax tree as text that is the same in every version of Python, without docstrings.

    Unless it `has_words`, it leaves out what only a reader sees: descriptions of settings and messages of errors.
    `ast.dump` prints what a version added to its nodes, so its text differs between 3.11, 3.12 and 3.13.
    """
    if isinstance(node, list):
        return "[" + ",".join(canonical(part, has_words) for part in node) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: value for name, value in ast.iter_fields(node) if value is not None and name not in LEFT_OUT}
    match node:
        case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
            if ast.get_docstring(node, clean=False) is not None:
                fields["body"] = node.body[1:]
        case ast.Raise(exc=ast.Call(func=func)) if not has_words:
            fields["exc"] = func
        case ast.Call(func=ast.Name(id="setting")) if not has_words:
            fields["args"] = []  # the description and the source
            fields["keywords"] = [word for word in node.keywords if word.arg not in {*WORDS, "source"}]
        case ast.Call(func=ast.Name(id="Field")) if not has_words:
            fields["keywords"] = [word for word in node.keywords if word.arg not in WORDS]
    inside = ",".join(f"{name}={canonical(value, has_words)}" for name, value in fields.items() if value != [])
    return f"{type(node).__name__}({inside})"
