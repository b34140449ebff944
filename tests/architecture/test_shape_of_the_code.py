import ast
from pathlib import Path

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
SAY_NOTHING = {"util", "utils", "helper", "helpers", "common", "core", "base", "manager", "misc"}
PUTS_OFF = {"skip", "skipif", "xfail", "importorskip"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> list[Function]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [node for node in nodes if isinstance(node, Function)]


def code_lines(function: Function) -> int:
    """Count a function's lines without its docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def test_a_module_holds_one_idea(written_by_hand: list[Path]) -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in written_by_hand}
    assert {path: lines for path, lines in lengths.items() if lines > MAX_MODULE_LINES} == {}


def test_functions_are_short(written_by_hand: list[Path]) -> None:
    lengths = {
        f"{path}:{function.name}": code_lines(function) for path in written_by_hand for function in functions(path)
    }
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FUNCTION_LINES} == {}


def test_names_say_something(root: Path, written_by_hand: list[Path]) -> None:
    paths = [path.relative_to(root).with_suffix("") for path in written_by_hand]
    assert [path for path in paths if SAY_NOTHING.intersection(path.parts)] == []


def test_imports_are_absolute(written_by_hand: list[Path]) -> None:
    relative = [
        f"{path}:{node.lineno}"
        for path in written_by_hand
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []


def test_packages_are_typed(root: Path, packages: list[str]) -> None:
    assert [package for package in packages if not (root / package / "py.typed").is_file()] == []


def test_every_folder_of_code_is_a_package(root: Path, packages: list[str]) -> None:
    folders = {path.parent for package in packages for path in (root / package).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def puts_off(node: ast.Attribute) -> bool:
    """Say whether this is pytest.skip, pytest.mark.xfail or one of their kin."""
    return node.attr in PUTS_OFF and ast.unparse(node.value) in ("pytest", "pytest.mark")


def test_no_test_is_put_off(root: Path) -> None:
    put_off = [
        f"{path}:{node.lineno}"
        for path in (root / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and puts_off(node)
    ]
    assert put_off == []


def test_test_files_have_names_of_their_own(root: Path) -> None:
    names = [path.name for path in (root / "tests").rglob("test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []
