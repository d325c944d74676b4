"""The files of the package: no import cycles, short files and functions, and one table of lazy names."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import pytest

import cuttlefish_signaling
from cuttlefish_signaling import _LAZY

ROOT = Path(__file__).parents[2] / "python" / "cuttlefish_signaling"

MAX_FILE = 400
MAX_FUNCTION = 40

Graph: TypeAlias = dict[str, set[str]]


def parsed(root: Path) -> dict[str, ast.Module]:
    """The modules of a package, by their path without suffix: `errors`, `testing/_peer`, `testing/__init__`."""
    return {
        path.relative_to(root).with_suffix("").as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(root.rglob("*.py"))
    }


# Imports --------------------------------------------------------------------------------------------------------------


def named(node: ast.AST, module: str, package: str) -> Iterator[tuple[str, ...]]:
    """The paths below the package that an import statement names: `from .a import b` names `("a", "b")`."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            first, *path = alias.name.split(".")
            if first == package:
                yield tuple(path)
    elif isinstance(node, ast.ImportFrom):
        path = node.module.split(".") if node.module else []
        if node.level:
            path = module.split("/")[: -node.level] + path
        elif path[0] == package:
            path = path[1:]
        else:
            return
        for alias in node.names:
            yield (*path, alias.name)


def module_of(path: tuple[str, ...], modules: Mapping[str, ast.Module], lazy: Mapping[str, str]) -> str | None:
    """The module that an import of this path needs. The table of lazy names stands for the package's own `__init__`."""
    if len(path) == 1 and path[0] in lazy:
        path = (lazy[path[0]],)
    for length in (len(path), len(path) - 1):
        module = "/".join(path[:length])
        for candidate in (module, f"{module}/__init__"):
            if candidate in modules and candidate != "__init__":
                return candidate
    return None


def imports(root: Path, lazy: Mapping[str, str]) -> Graph:
    """The modules that each module imports, also inside functions and under `TYPE_CHECKING`."""
    modules = parsed(root)
    graph: Graph = {module: set() for module in modules if module != "__init__"}
    for module in graph:
        for node in ast.walk(modules[module]):
            found = (module_of(path, modules, lazy) for path in named(node, module, root.name))
            graph[module].update(other for other in found if other is not None)
    return graph


def with_folders(graph: Graph) -> Graph:
    """Adds an edge for each import from one folder to another, or between a folder and a file beside it."""
    edges: Graph = {module: set(others) for module, others in graph.items()}
    for module, others in graph.items():
        for other in others:
            ours, theirs = module.split("/"), other.split("/")
            depth = next(at for at, (one, two) in enumerate(zip(ours, theirs, strict=False)) if one != two)
            edges.setdefault("/".join(ours[: depth + 1]), set()).add("/".join(theirs[: depth + 1]))
    return edges


def reachable(graph: Graph, start: str) -> set[str]:
    """The nodes that a path leads to from this one. A node on a cycle reaches itself."""
    found: set[str] = set()
    open_ends = [start]
    while open_ends:
        new = graph.get(open_ends.pop(), set()) - found
        found |= new
        open_ends += new
    return found


def cycles(root: Path, lazy: Mapping[str, str]) -> set[frozenset[str]]:
    """The files and folders of a package that import each other, in groups."""
    graph = with_folders(imports(root, lazy))
    reached = {node: reachable(graph, node) for node in graph}
    return {
        frozenset(other for other in reached[node] if node in reached.get(other, set()))
        for node in graph
        if node in reached[node]
    }


def test_package_has_no_import_cycle() -> None:
    graph = imports(ROOT, _LAZY)
    assert graph["_journal"] >= {"_search", "_query", "_view"}, "imports are found, those for a type checker included"
    assert "errors" in graph["testing/_peer"]
    assert "_server" in graph["cli/serve"], "through the table of lazy names"
    assert cycles(ROOT, _LAZY) == set()


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ({"a": "from .b import x", "b": "from .a import y"}, {"a", "b"}),
        ({"a": "from . import b", "b": "import package.a"}, {"a", "b"}),
        ({"a": "from package.b import x", "b": "from package import a"}, {"a", "b"}),
        ({"a": "from .b import x", "b": "def f():\n    from .a import y"}, {"a", "b"}),
        ({"a": "from .b import x", "b": "if TYPE_CHECKING:\n    from .a import y"}, {"a", "b"}),
        ({"a": "from .b import x", "b": "from .c import y", "c": "from .a import z"}, {"a", "b", "c"}),
        ({"a": "from .b import x", "b": "from .c import y", "c": "from .b import z"}, {"b", "c"}),
        ({"a": "from . import Lazy", "lazy": "from .a import y"}, {"a", "lazy"}),
        ({"sub/a": "from . import b", "sub/b": "from .a import y"}, {"sub/a", "sub/b"}),
        ({"sub/__init__": "from .a import x", "sub/a": "from . import y"}, {"sub/__init__", "sub/a"}),
        ({"a": "from .sub.b import x", "sub/b": "", "sub/c": "from ..a import y"}, {"a", "sub"}),
        ({"a": "from .sub import x", "sub/__init__": "from .b import x", "sub/b": "from ..c import y", "c": ""}, set()),
        ({"__init__": "from .a import x", "a": "from . import x"}, set()),
    ],
)
def test_import_cycles_are_found(sources: dict[str, str], found: set[str], tmp_path: Path) -> None:
    for module, source in sources.items():
        file = tmp_path / "package" / f"{module}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source, encoding="utf-8")
    assert cycles(tmp_path / "package", {"Lazy": "lazy"}) == ({frozenset(found)} if found else set())


# Sizes ----------------------------------------------------------------------------------------------------------------


def functions(node: ast.AST, name: str) -> Iterator[tuple[str, int]]:
    """The functions below a node, by qualified name, with their lines. All arguments count as one."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{name}{child.name}", (child.end_lineno or 0) - child.body[0].lineno + 2
        inner = f"{name}{child.name}." if isinstance(child, ast.ClassDef | ast.FunctionDef) else name
        yield from functions(child, inner)


def test_files_are_short() -> None:
    """Python, and the tests in Rust and C. `tests/core/sizes.rs` checks `src`."""
    repository = ROOT.parents[1]
    folders = ("python", "tests", "scripts", "benches", "examples", "fuzz/src")
    files = [path for folder in folders for path in (repository / folder).rglob("*.*")]
    lengths = {
        path.relative_to(repository).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in files
        if path.suffix in {".py", ".rs", ".c"}
    }
    assert len(lengths) > 150
    assert {name for name, lines in lengths.items() if lines > MAX_FILE} == set()


def test_functions_are_short() -> None:
    lengths = {
        f"{module}:{name}": lines for module, tree in parsed(ROOT).items() for name, lines in functions(tree, "")
    }
    assert lengths["_journal:Journal.count"] == 3
    assert {name for name, lines in lengths.items() if lines > MAX_FUNCTION} == set()


# The table of lazy names ----------------------------------------------------------------------------------------------


def test_lazy_table_matches_imports_for_type_checkers() -> None:
    statements = [node for node in ast.walk(parsed(ROOT)["__init__"]) if isinstance(node, ast.ImportFrom)]
    seen = {alias.name: str(node.module) for node in statements for alias in node.names if node.level}
    assert seen.pop("require_main") == "_interpreter", "the one import that is not for a type checker"
    assert seen == _LAZY


def test_lazy_table_has_all_public_names() -> None:
    assert sorted(_LAZY) == sorted(cuttlefish_signaling.__all__)
    for name, module in _LAZY.items():
        assert getattr(cuttlefish_signaling, name) is getattr(
            importlib.import_module(f"cuttlefish_signaling.{module}"), name
        )
    assert set(dir(cuttlefish_signaling)) >= set(_LAZY)
    with pytest.raises(AttributeError, match="has no attribute 'Signalling'"):
        _ = cuttlefish_signaling.Signalling
