"""LaTeX from text that nobody vetted, and tables that are no wider than the page.

What is written needs the packages booktabs and graphicx, T1 fontenc, and LaTeX of 2020 or later.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

PREAMBLE = r"\usepackage[T1]{fontenc}\usepackage{booktabs,graphicx}"
"""What a document has to say for everything written here to compile."""
_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "[": "{[}", "]": "{]}", "*": "{*}", "`": r"\textasciigrave{}", "'": r"\textquotesingle{}",
    "–": r"\textendash{}", "±": r"$\pm$", "ρ": r"$\rho$", "λ": r"$\lambda$", "|": r"\textbar{}",
    '"': r"\textquotedbl{}", "α": r"$\alpha$", "δ": r"$\delta$", "×": r"$\times$", "²": r"$^{2}$",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\rightarrow$", "†": r"\textdagger{}", "…": r"\ldots{}",
    "≥": r"$\geq$", "≤": r"$\leq$", "−": r"$-$", "‖": r"$\Vert$",
}  # fmt: skip
_LIGATURES = re.compile("-(?=-)|,(?=,)")
_LACKING = frozenset("ĦħĸĿŀŉŦŧ")
_KNOWN = frozenset(map(chr, range(0xA1, 0x17F))) - _LACKING | frozenset("ȘșȚț‘’‚“”„—•€™")
"""Characters beyond ASCII that T1 fonts have; any other, and LaTeX would stop at the first."""
_LINE = 345.0
"""Width of a line of a LaTeX article at 10 pt, pt; a letter is about half its size wide."""
_LETTER, _GAP = 5.0, 12.0
_HEAD = 10
"""Characters up to which the head of a column stands on one line."""


def tex_escape(text: str) -> str:
    """``text`` as LaTeX shows it literally; what is not printable becomes a question mark.

    Brackets and stars stand in braces, because LaTeX reads them as arguments of the row's end before them. A character
    that its fonts do not have is named by its number, ``[U+4E2D]``.
    """
    plain = "".join(character if character.isprintable() else "?" for character in " ".join(text.split()))
    plain = _LIGATURES.sub(r"\g<0>\0", plain)  # two hyphens would be set as a dash, two commas as a quotation mark
    return "".join("{}" if character == "\0" else _literal(character) for character in plain)


def _literal(character: str) -> str:
    if character in _TEX:
        return _TEX[character]
    return character if character.isascii() or character in _KNOWN else f"{{[}}U+{ord(character):04X}{{]}}"


def stacked(text: str, side: str = "r") -> str:
    """The head of a column, escaped; where it is long, its words stand one below the other."""
    words = _words(text)
    if len(words) < 2:
        return tex_escape(text)
    return rf"\shortstack[{side}]{{" + r"\\".join(tex_escape(word) for word in words) + "}"


def _words(head: str) -> list[str]:
    """The lines of a column's head; an arrow stays with the word before it."""
    return [head] if len(head) <= _HEAD else re.sub(r" (?=\S( |$))", "\xa0", head).split(" ")


def table_float(
    tabular: Sequence[str], *, caption: str, label: str, heads: Sequence[str], cells: Sequence[Sequence[str]]
) -> str:
    """The lines of a ``tabular`` as a floating table with a caption above it.

    ``heads`` and ``cells`` are what it shows, from which its width is guessed: where it may be wider than a line it is
    made as narrow as one, which LaTeX itself decides. ``caption`` is escaped here; ``label`` is taken as it is.
    """
    shown = [[max(_words(head), key=len) for head in heads], *cells]
    widest = [max(len(cell) for cell in column) for column in zip(*shown, strict=True)]
    lines = list(tabular)
    if sum(_LETTER * width + _GAP for width in widest) > _LINE:
        guard = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
        lines = [guard, *lines[:-1], lines[-1] + "}"]
    head = [r"\begin{table}", r"\centering", rf"\caption{{{tex_escape(caption)}}}", rf"\label{{{label}}}", r"\medskip"]
    return "\n".join([*head, *lines, r"\end{table}"]) + "\n"
