"""The modules that a stage's script imports, directly or not, each with a hash of its meaning.

Knows import statements and this project's folders; what a module means is `meaning`'s to say.

An import counts wherever it stands: a function's is followed like a module's, since the function
may run. One under `if TYPE_CHECKING:` never runs, and is not followed. Imports that no syntax tree
shows (`importlib`, `exec`, a changed `sys.path`) have no place in `src`; a test refuses them.
"""

import ast
from collections.abc import Iterator
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Final, NamedTuple

from biomassters.errors import SourceCodeError
from biomassters.fingerprint.meaning import hash_meaning, hash_tree, parse, walk_statements

LEFT_OUT: Final = (
    "biomassters.errors",
    "biomassters.fingerprint",
    "biomassters.params",
    "biomassters.processes",
)
"""Modules and packages that no stage depends on, though all import them.

They refuse, start and end, and change no result: an error is raised in place of one; the schema
accepts or refuses the values of params.yaml, on which stages depend by themselves; processes start,
hold and end what others compute; fingerprints tell whether that must be computed at all. They
import nothing of this project but one another.
"""


class Import(NamedTuple):
    """One imported thing.

    Attributes:
        module: The module.
        name: What is imported from it; "" = all, or the module itself.
        line: Where.
    """

    module: str
    name: str
    line: int


def hash_closure(script: Path) -> dict[str, str]:
    """Hash the meaning of a script and of each module that it imports, but those `LEFT_OUT`.

    Args:
        script: A stage's script. Its folder is the root of all modules, as when it is run.

    Returns:
        Hashes by the modules' names, sorted.

    Raises:
        SourceCodeError: A source is not Python, or imports a module of this project that is not
            there.
    """
    return hash_modules(script.parent, script.stem)


def hash_modules(root: Path, module: str) -> dict[str, str]:
    """Hash the meaning of a module and of each that it imports; see `hash_closure`.

    Args:
        root: The folder of all modules.
        module: Its dotted name.

    Raises:
        SourceCodeError: As `hash_closure`.
    """
    hashes: dict[str, str] = {}
    waiting, modules = [module], _Modules(root)
    while waiting:
        name = waiting.pop()
        path = None if name in hashes or is_left_out(name) else modules.find(name)
        if path is not None:
            hashes[name], imports = _read(path, name)
            waiting += modules.list_loaded(path, imports)
    return dict(sorted(hashes.items()))


def is_left_out(name: str) -> bool:
    """Tell whether a module is one that no stage depends on."""
    return any(name == left or name.startswith(f"{left}.") for left in LEFT_OUT)


def find_source(root: Path, name: str) -> Path | None:
    """Return a module's file, as Python finds it: a package before a module of the same name.

    None stands for a module of elsewhere, and for a folder that has no `__init__.py`.
    """
    base = root.joinpath(*name.split("."))
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if path.is_file():
            return path
    return None


def _read(path: Path, name: str) -> tuple[str, tuple[Import, ...]]:
    try:
        source = path.read_text(encoding="utf-8")
        return _analyse(source, name, path.name == "__init__.py")
    except (SyntaxError, ValueError) as error:  # also of bytes that are not UTF-8
        raise SourceCodeError(
            f"expected Python, got {' '.join(str(error).split())}, at {path}; mend the file"
        ) from None


@lru_cache(maxsize=1024)  # stages share most of their modules
def _analyse(source: str, name: str, is_package: bool) -> tuple[str, tuple[Import, ...]]:
    """Return the hash of a source, and its imports."""
    tree = parse(source)
    return hash_tree(tree), tuple(_list_imports(tree, name, is_package))


def _list_imports(tree: ast.Module, name: str, is_package: bool) -> Iterator[Import]:
    for node in walk_statements(tree.body):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, "", node.lineno)
        elif isinstance(node, ast.ImportFrom):
            # One dot is the package that a module lies in, or the package itself; each further
            # one is the package around.
            package = name.split(".") if is_package else name.split(".")[:-1]
            around = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*around, *filter(None, [node.module])])
            for alias in node.names:
                yield Import(base, "" if alias.name == "*" else alias.name, node.lineno)


class _Modules:
    """The modules below a folder, each looked for once: a hundred files import the same ones."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.find = cache(partial(find_source, root))
        self._is_module = cache(self._has)

    def list_loaded(self, importer: Path, imports: tuple[Import, ...]) -> Iterator[str]:
        """Yield the modules of this project that imports load: packages, and what lies in them."""
        for module, name, line in imports:
            parts = module.split(".")
            if not self._is_module(parts[0]):
                continue  # a library's
            for depth in range(1, len(parts) + 1):
                parent = ".".join(parts[:depth])
                if not self._is_module(parent):
                    raise _missing(parent, importer, line)
                yield parent
            if name and self._is_module(f"{module}.{name}"):
                yield f"{module}.{name}"
            elif name and not self._may_define(module):
                raise _missing(f"{module}.{name}", importer, line)

    def _has(self, name: str) -> bool:
        return self.find(name) is not None or self.root.joinpath(*name.split(".")).is_dir()

    def _may_define(self, module: str) -> bool:
        """Tell whether a module can have names of its own: it is no package of modules alone."""
        path = self.find(module)
        if path is None or path.name != "__init__.py":
            return path is not None
        return _read(path, module)[0] != hash_meaning("")


def _missing(name: str, importer: Path, line: int) -> SourceCodeError:
    return SourceCodeError(
        f"expected the module {name}, which is imported, got none, at {importer}, line {line};"
        " restore its file, or mend the import"
    )
