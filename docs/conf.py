"""How the pages become a site: for Sphinx, which reads this file; `python -m docs` builds it.

The pages are written to be read as they lie there, too. So what only a site can do (the reference, the menu) stands in pages of
its own, and what only a repository can do (links to files beside `docs/`) is rewritten here.
"""

from __future__ import annotations

import os
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from app.infra.flow import __version__  # noqa: E402  (the path comes first)

project = "Night Batch"
author = "The Night Batch authors"
project_copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}

# Anchors as GitHub makes them, so that one link serves both.
myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
python_use_unqualified_type_names = True
add_module_names = False
smartquotes_action = "De"  # dashes, no curly quotes: a "string" of a docstring is one of Python's
# In docstrings, what stands in single backticks is code; it is a link, too, where it names something of ours.
default_role = "py:obj"
maximum_signature_line_length = 100

html_theme = "furo"
html_title = f"Night Batch {__version__}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}

SOURCE = os.environ.get("NIGHT_BATCH_SOURCE_URL", "").rstrip("/")
"""Where the repository is shown, if anywhere: `https://.../blob/main`. Links to files beside `docs/` lead there."""

_LINK = re.compile(r"\[([^\]]*)\]\(((?:\.\./)+[^)#\s]*)(#[^)\s]*)?\)")


def leading_out(page: str, text: str) -> str:
    """The text of a page with its links to files that are not part of the site leading to the repository, or nowhere."""

    def replaced(found: re.Match[str]) -> str:
        label, link, heading = found[1], found[2], found[3] or ""
        target = (HERE / page).parent.joinpath(link).resolve()
        if target.is_relative_to(HERE):
            return found[0]
        name = target.relative_to(ROOT).as_posix()
        return f"[{label}]({SOURCE}/{name}{heading})" if SOURCE else f"{label} (`{name}`)" if f"`{name}`" not in label else label

    return _LINK.sub(replaced, text)


def _on_source_read(_app: Any, page: str, source: list[str]) -> None:
    # Sphinx draws no Mermaid without a script from elsewhere, and the site shall work offline: its text says the same.
    source[0] = leading_out(page, source[0]).replace("```mermaid\n", "```text\n")


_SECTIONS = ("Args:", "Attributes:", "Raises:", "Returns:", "Yields:")


def as_written(lines: list[str]) -> list[str]:
    """A docstring in which names with angle brackets are no links, and what is indented below a paragraph is a program."""
    written: list[str] = []
    around = 0  # how far the paragraph above is indented
    inside = False
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if line and written and not written[-1] and indent >= around + 4:
            above = next((text for text in reversed(written) if text), "")
            if not inside and above.strip() not in _SECTIONS:
                inside = True
                written[-1:] = [" " * around + "::", ""] if not above.endswith("::") else [""]
                written.insert(-2, "")
        elif line and indent <= around:
            inside = False
        if line and not inside:
            around = indent
        written.append(line if inside else re.sub(r"(?<!`)`([^`]*<[^`]*)`(?!`)", r"``\1``", line))
    return written


def _on_docstring(_app: Any, _what: str, _name: str, _thing: Any, _options: Any, lines: list[str]) -> None:
    lines[:] = as_written(lines)


def _on_signature(
    _app: Any, _what: str, _name: str, _thing: Any, _options: Any, signature: str | None, answer: str | None
) -> tuple[str | None, str | None]:
    # Sphinx takes a signature that is no Python for one long text. What a dataclass makes anew each time is `...` then.
    return signature and signature.replace("<factory>", "..."), answer


def _whole_sentence(docstring: Any) -> tuple[str, list[str]]:
    # Napoleon takes what stands before the first colon of an attribute's docstring for its type. Ours are sentences.
    lines = [docstring._lines.next(), *docstring._dedent(docstring._consume_to_end())]
    return "", docstring.__class__(lines, docstring._config).lines()


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    import_module("sphinx.ext.napoleon.docstring").GoogleDocstring._consume_inline_attribute = _whole_sentence
    app.connect("source-read", _on_source_read)
    app.connect("autodoc-process-docstring", _on_docstring, priority=100)  # before Napoleon
    app.connect("autodoc-process-signature", _on_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
