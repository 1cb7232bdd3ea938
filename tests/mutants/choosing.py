"""Which mutants are made, and which tests each of them meets."""

from __future__ import annotations

import ast
import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from cosmic_ray.work_item import MutationSpec
from coverage import CoverageData

#: Recorded seconds of the tests that one mutant meets, the fastest first.
_BUDGET = 90.0
_MOST_TESTS = 1500

#: Identity in place of equality: the same for small integers and the strings of a source, so no fault.
_SAME = re.compile("(Eq_Is|NotEq_IsNot|Is_Eq|IsNot_NotEq)$")


def sample(areas: Mapping[str, Sequence[Path]], count: int, seed: int) -> list[MutationSpec]:
    """So many mutations, in equal parts of each area, the same for the same files and seed."""
    chosen: list[MutationSpec] = []
    for number, (area, files) in enumerate(areas.items()):
        found = [mutation for file in sorted(files) for mutation in _mutations(file)]
        share = count // len(areas) + (number < count % len(areas))
        random.Random(f"{seed}/{area}").shuffle(found)
        chosen += itertools.islice(filter(_is_fault, found), share)
    return chosen


def _mutations(file: Path) -> Iterator[MutationSpec]:
    """All that cosmic-ray can make of a file, in a fixed order."""
    nodes = list(ast_nodes(get_ast_from_path(file)))
    spans = list(_passed_over(file))
    for name in sorted(operator_names()):
        operator = get_operator(name)
        if operator.arguments():  # those that wait for a regular expression of the user's
            continue
        positions = [where for node in nodes for where in operator().mutation_positions(node)]
        for occurrence, (start, end) in enumerate(positions):
            if not any(first <= start and end <= last for first, last in spans):
                yield MutationSpec(file, name, occurrence, start, end)


def _is_fault(mutation: MutationSpec) -> bool:
    """Whether Python can run it, and it is another program: a bare ``*`` among parameters is no product."""
    if _SAME.search(mutation.operator_name):
        return False
    code = mutation.module_path.read_text()
    operator = get_operator(mutation.operator_name)()
    try:
        mutated = ast.parse(mutate_code(code, operator, mutation.occurrence))
    except SyntaxError:
        return False
    return ast.dump(mutated) != ast.dump(ast.parse(code))


def _passed_over(file: Path) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Spans where a change means nothing: annotations, which nobody evaluates, and the wording of errors."""
    for node in ast.walk(ast.parse(file.read_text())):
        parts: list[ast.AST | None] = []
        if isinstance(node, ast.arg | ast.AnnAssign):
            parts = [node.annotation]
        elif isinstance(node, ast.FunctionDef):
            parts = [node.returns]
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            parts = [*node.exc.args, *(keyword.value for keyword in node.exc.keywords)]
        for part in parts:
            if part is not None:
                yield (part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset)


@dataclass
class Tests:
    """The tests that reach each line, as a run of all of them saw it.

    Attributes:
        coverage: with a context for each test.
        seconds: of each test that passes.
    """

    coverage: CoverageData
    seconds: Mapping[str, float]
    _lines: dict[str, Mapping[int, list[str]]] = field(default_factory=dict)

    def reaching(self, mutation: MutationSpec) -> list[str]:
        """Those that run the mutated lines, the fastest first, as many as the budget allows.

        Lines that run on import alone concern every test that runs anything of their file.
        """
        by_line = self._by_line(Path(mutation.module_path))
        lines = range(mutation.start_pos[0], mutation.end_pos[0] + 1)
        found = {test for line in lines for test in by_line.get(line, ())}
        found = found or {test for tests in by_line.values() for test in tests}
        chosen, spent = [], 0.0
        for test in sorted(found, key=lambda test: (self.seconds[test], test))[:_MOST_TESTS]:
            spent += self.seconds[test]
            if chosen and spent > _BUDGET:
                break
            chosen.append(test)
        return chosen

    def expected(self, tests: Sequence[str]) -> float:
        """Seconds that these tests take on the unchanged code."""
        return sum(self.seconds[test] for test in tests)

    def _by_line(self, file: Path) -> Mapping[int, list[str]]:
        name = next((n for n in self.coverage.measured_files() if n.endswith(str(file))), "")
        if name not in self._lines:
            self._lines[name] = {
                line: [
                    test for context in contexts if (test := context.split("|")[0]) in self.seconds
                ]
                for line, contexts in self.coverage.contexts_by_lineno(name).items()
            }
        return self._lines[name]
