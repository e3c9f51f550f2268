"""The conformance suite is whole, and its page and its gates say what is so."""

from __future__ import annotations

import matrix


def test_every_statement_has_one_test_with_a_sentence() -> None:
    found = list(matrix.statements())
    assert sorted(statement.id for statement in found) == sorted(
        matrix.STATEMENTS + matrix.OWN_STATEMENTS
    )
    assert [statement.id for statement in found if not statement.sentence] == []


def test_every_gate_has_a_statement_and_a_reason() -> None:
    for gate in matrix.gates():
        assert gate.id in matrix.STATEMENTS + matrix.OWN_STATEMENTS
        assert gate.system in ("linux", "darwin")
        assert gate.reason.strip()


def test_every_gate_of_linux_is_told_among_the_differences() -> None:
    differences = " ".join(matrix.DIFFERENCES.read_text().split())
    for gate in matrix.gates():
        if gate.system == "linux":
            assert gate.differences, gate.id
            assert f"**{gate.differences}" in differences, gate.id


def test_no_statement_is_gated_twice_on_one_system() -> None:
    gated = [(gate.id, gate.system) for gate in matrix.gates()]
    assert len(gated) == len(set(gated))


def test_the_page_is_current() -> None:
    assert matrix.PAGE.read_text() == matrix.render(), "run make conformance"
