"""Makes the interface trace table: requirement id, clause, and the tests that prove it.

``python docs/trace_table.py`` prints it as reStructuredText; the documentation build runs it.  Tests are
read as source, not imported: a test proves what its ``@proves`` decorator, or its class's, says.
"""

import ast
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

DOCS = Path(__file__).resolve().parent
TESTS = DOCS.parent / "tests"


def requirements() -> Mapping[str, Mapping[str, str]]:
    """Each requirement id with its ``clause`` and what it ``asks``."""
    return tomllib.loads((DOCS / "requirements.toml").read_text(encoding="utf-8"))


def proofs(tests: Path = TESTS) -> Iterator[tuple[str, str]]:
    """Pairs of a requirement id and the test, or the class of tests, that proves it."""
    for path in sorted(tests.glob("test_*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"), str(path))
        for node in module.body:
            if isinstance(node, ast.ClassDef):
                yield from ((identifier, f"{path.stem}.{node.name}") for identifier in _proven(node))
                for method in node.body:
                    if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
                        name = f"{path.stem}.{node.name}.{method.name}"
                        yield from ((identifier, name) for identifier in _proven(method))


def table() -> str:
    """The trace table as a reStructuredText list-table."""
    tests: dict[str, list[str]] = {identifier: [] for identifier in requirements()}
    for identifier, test in proofs():
        tests[identifier].append(test)
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 6 24 35 35", ""]
    lines += _row("Id", "Clause", "Asks", ["Proven by"])
    for identifier, requirement in requirements().items():
        proven = [f"``{test}``" for test in dict.fromkeys(tests[identifier])]
        lines += _row(identifier, requirement["clause"], requirement["asks"], proven)
    return "\n".join(lines) + "\n"


def _row(identifier: str, clause: str, asks: str, tests: list[str]) -> list[str]:
    first, *others = tests or ["**nothing yet**"]
    cells = [f"   * - {identifier}", f"     - {clause}", f"     - {asks}", f"     - | {first}"]
    return cells + [f"       | {test}" for test in others]


def _proven(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "proves":
            for argument in decorator.args:
                if isinstance(argument, ast.Constant):
                    yield str(argument.value)


if __name__ == "__main__":
    print(table())
