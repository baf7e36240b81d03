"""OpenQASM text as statements, with the line of each.

The reference parser takes a millisecond for a gate. Plain calls of gates, of which circuits consist, are read here; all
other statements, and calls with anything unusual in them, go to the reference parser.
"""

from __future__ import annotations

import ast as python
import contextlib
import io
import re
from collections.abc import Iterator
from typing import Any


class QasmError(ValueError):
    """OpenQASM that cannot be read; the message begins with its line."""


_OPERAND = r"[A-Za-z_]\w*(?:\s*\[\s*\d+\s*\])?"
_CALL = re.compile(
    rf"([A-Za-z_]\w*)\s*(?:\(([\w\s.,+\-*/%π]*)\))?\s*({_OPERAND}(?:\s*,\s*{_OPERAND})*)\s*;", flags=re.ASCII
)
_KEYWORDS = frozenset(
    {
        *("OPENQASM", "include", "gate", "opaque", "qreg", "creg", "qubit", "bit", "measure", "barrier", "reset"),
        *("if", "else", "for", "while", "in", "return", "end", "break", "continue", "switch", "case", "default"),
        *("const", "input", "output", "delay", "box", "def", "cal", "defcal", "extern", "int", "uint", "float"),
        *("complex", "bool", "duration", "stretch", "array", "ctrl", "negctrl", "inv", "pow", "mutable", "readonly"),
        *("gphase", "let", "angle"),
    }
)
_OPERATORS: dict[type, str] = {
    python.Add: "+", python.Sub: "-", python.Mult: "*", python.Div: "/", python.Mod: "%", python.Pow: "**",
}  # fmt: skip


def statements(text: str) -> Iterator[Any]:
    """Yield the statements of a program as nodes of `openqasm3.ast`, their spans in lines of the whole text.

    Raises
    ------
    QasmError
        If a statement cannot be parsed.
    ModuleNotFoundError
        If the extra ``network`` is not installed.
    """
    try:
        import openqasm3  # noqa: F401
    except ImportError as error:
        raise ModuleNotFoundError(
            "OpenQASM needs the extra `network`: pip install molecular-compression[network]"
        ) from error
    for line, piece in _pieces(_without_comments(text)):
        call = _plain_call(piece.strip(), line)
        if call is not None:
            yield call
        else:
            yield from _parse("\n" * (line - 1) + piece.lstrip())


def _without_comments(text: str) -> str:
    return re.sub(r"//[^\n]*|/\*.*?\*/", lambda found: re.sub(r"[^\n]", " ", found[0]), text, flags=re.DOTALL)


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """Yield statements, each with the line on which it begins; what follows the last one is a piece too."""
    start = depth = inside = 0  # inside: brackets around, in which braces are sets
    line = 1
    for mark in re.finditer(r'"[^"\n]*"|[;{}\[\]]', text):
        if mark[0] in "[]":
            inside += 1 if mark[0] == "[" else -1
        elif mark[0] in "{}" and inside <= 0:
            depth += 1 if mark[0] == "{" else -1
        if depth > 0 or mark[0] not in ";}" or (mark[0] == "}" and inside > 0):
            continue
        piece = text[start : mark.end()]
        blank = len(piece) - len(piece.lstrip())
        yield line + piece.count("\n", 0, blank), piece
        line += piece.count("\n")
        start, depth, inside = mark.end(), 0, 0
    rest = text[start:]
    if rest.strip():
        blank = len(rest) - len(rest.lstrip())
        yield line + rest.count("\n", 0, blank), rest


def _plain_call(piece: str, line: int) -> Any:
    """Return the node of a call such as ``rx(pi/2) q[0];``, or ``None`` if it is anything else."""
    found = _CALL.fullmatch(piece)
    if found is None or found[1] in _KEYWORDS:
        return None
    from openqasm3 import ast

    try:
        arguments = [] if found[2] is None else [_expression(part) for part in found[2].split(",")]
    except (SyntaxError, _UnusualError):
        return None
    operands = []
    for part in found[3].split(","):
        name, bracket, index = part.partition("[")
        operand: Any = ast.Identifier(name.strip())
        if bracket:
            operand = ast.IndexedIdentifier(operand, [[ast.IntegerLiteral(int(index.strip().rstrip("]")))]])
        operands.append(operand)
    node = ast.QuantumGate([], ast.Identifier(found[1]), arguments, operands)
    node.span = ast.Span(line, 0, line, 0)
    return node


class _UnusualError(Exception):
    """An expression that the reference parser must look at."""


def _expression(text: str) -> Any:
    return _node(python.parse(text.strip(), mode="eval").body)


def _node(tree: python.expr) -> Any:
    from openqasm3 import ast

    if isinstance(tree, python.Constant) and isinstance(tree.value, float):
        return ast.FloatLiteral(tree.value)
    if isinstance(tree, python.Constant) and type(tree.value) is int:
        return ast.IntegerLiteral(tree.value)
    if isinstance(tree, python.Name):
        return ast.Identifier(tree.id)
    if isinstance(tree, python.UnaryOp) and isinstance(tree.op, python.USub):
        return ast.UnaryExpression(ast.UnaryOperator["-"], _node(tree.operand))
    if isinstance(tree, python.BinOp) and type(tree.op) in _OPERATORS:
        return ast.BinaryExpression(ast.BinaryOperator[_OPERATORS[type(tree.op)]], _node(tree.left), _node(tree.right))
    raise _UnusualError


def _parse(text: str) -> list[Any]:
    import openqasm3
    from openqasm3.parser import QASM3ParsingError

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return list(openqasm3.parse(text).statements)
    except QASM3ParsingError as error:
        token = getattr(next(iter(getattr(error.__cause__, "args", ())), None), "offendingToken", None)
        if token is not None:
            near = "the end" if token.type == -1 else repr(token.text)
            raise QasmError(f"Line {token.line}: the program cannot be parsed at {near}.") from None
        message = str(error) or said.getvalue().strip()
        place = re.match(r"L(\d+):C\d+: (.*)", message, flags=re.DOTALL)
        line, message = (place[1], place[2]) if place else ("?", message)
        raise QasmError(f"Line {line}: the program cannot be parsed: {message}.") from None
