"""The code that a method's numbers depend on beyond its settings: its file, those of its bases, and the parts they use."""

from __future__ import annotations

import ast
import functools
import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from acclimate.losses import cross_entropy
from acclimate.methods.base import Method

PARTS = ("acclimate.losses.", "acclimate.networks.", "acclimate.transforms.")
READERS = "acclimate.networks.contract"  # every method names its types, and it computes nothing by itself
WORDS = {"card", "facts", "watch"}  # of a method's class: what is said, not what is done


def code_files(method: type[Method]) -> list[Path]:
    """The method's file, the files of the methods it extends, and of the losses, critics, generators and the like that these
    use, in order of name.

    Other methods, other losses and the rest of the library do not count, so that a commit elsewhere voids no finished run.
    """
    kinds = [kind for kind in method.__mro__ if issubclass(kind, Method) and kind is not Method]
    # The loss is reached through the task, not through the method's file.
    return files_of(sys.modules[each.__module__] for each in (*kinds, cross_entropy))


def files_of(modules: Iterable[ModuleType], rooms: tuple[str, ...] = PARTS) -> list[Path]:
    """The files of modules and of what they use from ``rooms`` (beginnings of module names), in order of name.

    What was typed at a prompt has no file.
    """
    found: dict[str, ModuleType] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module.__name__ in found:
            continue
        found[module.__name__] = module
        waiting += [sys.modules[name] for name in _used(module) if name.startswith(rooms) and name != READERS]
    files = {getattr(module, "__file__", None) for module in found.values()}
    return sorted(Path(file) for file in files if file)


@functools.lru_cache(None)
def code_hash(path: Path) -> str:
    """A hash of what a file does: comments, layout, docstrings and the words of a method's card do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [part for part in node.body if not _says(part)] or [ast.Pass()]
    return hashlib.blake2b(ast.unparse(tree).encode(), digest_size=16).hexdigest()


def _says(node: ast.stmt) -> bool:
    """Whether a statement is a text, or gives a class its card."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return bool(targets) and all(isinstance(target, ast.Name) and target.id in WORDS for target in targets)


def _used(module: ModuleType) -> set[str]:
    """The modules in which the names of a module were defined."""
    values = vars(module).values()
    modules = {value.__name__ for value in values if isinstance(value, ModuleType)}
    return modules | {str(getattr(value, "__module__", "")) for value in values if callable(value)}
