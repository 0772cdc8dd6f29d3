"""The modules of this project that a script imports, directly or not, read from the sources.

Run as a script, it lists them in dvc.yaml, as tests/pipeline/test_definition.py asks.
"""

import ast
import re
from pathlib import Path

SRC = Path(__file__).parents[1] / "src"
STAGE = re.compile(r"  (\w+):")


def import_closure(script: Path) -> set[str]:
    """Return the script and all that it imports from `src`, as paths from the repository's root."""
    found: set[Path] = set()
    waiting = [script]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative imports are not followed"
                base = node.module or ""
                names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
            else:
                continue
            for name in names:
                waiting += _module_files(name)
    return {str(path.relative_to(SRC.parent)) for path in found}


def _module_files(name: str) -> list[Path]:
    """Return a module's file and its packages' `__init__.py`, where they are this project's."""
    files = []
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        base = SRC.joinpath(*parts[:depth])
        files += [path for path in (base.with_suffix(".py"), base / "__init__.py") if path.exists()]
    return files


def rewrite_deps(definition: str) -> str:
    """Return dvc.yaml with the sources among each stage's deps replaced by its script's closure."""
    lines: list[str] = []
    stage, is_written = "", True
    for line in definition.splitlines():
        if match := STAGE.fullmatch(line):
            stage, is_written = match[1], False
        if not line.startswith("      - src/"):
            lines.append(line)
        elif not is_written:
            lines += [f"      - {path}" for path in sorted(import_closure(SRC / f"{stage}.py"))]
            is_written = True
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    path = SRC.parent / "dvc.yaml"
    path.write_text(rewrite_deps(path.read_text()))
