"""Docstrings name things as Sphinx roles and literal blocks; mkdocs reads Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc|obj):`(~?)([\w.]+)`")


def to_markdown(text: str) -> str:
    """``:class:`~package.Name``` becomes code, and ``::`` before an indented block goes."""
    text = _ROLE.sub(lambda m: f"`{m[2].rpartition('.')[2] if m[1] else m[2]}`", text)
    text = re.sub(r"^::$\n", "", text, flags=re.MULTILINE)
    return re.sub(r"::$", ":", text, flags=re.MULTILINE)


class DocstringRoles(griffe.Extension):
    """Rewrites each docstring when its object is collected."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)
