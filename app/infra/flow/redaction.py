"""What is kept of the texts that users' code makes: without their secrets, as the flow's hooks see them, and of bounded length.

Pure, but for the hooks, which are the user's; must not know runs or stores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .codec import TAG, clean
from .errors import abridged
from .models import Failure

Redact = Callable[[str], str]
"""A user's hook: takes a text, and gives it back without its secrets."""

MAX_MESSAGE = 64 * 1024
"""Characters of an exception's message, or of a line of a log, that are kept."""
MAX_TRACEBACK = 256 * 1024
"""Characters of a traceback that are kept."""
MAX_REASON = 500
"""Characters of a reason that a task gives for being skipped."""

FAILED = "(redaction failed)"


def redacted(text: str, hooks: Iterable[Redact]) -> str:
    """The text as the hooks, one after the other, give it back. One that raises, or gives no text, leaves nothing of it."""
    for hook in hooks:
        try:
            given: object = hook(text)
            if not isinstance(given, str):
                return FAILED
            # The text itself, should it be of a class derived from str; and such as a store can hold.
            text = clean(str.__str__(given))
        except KeyboardInterrupt:  # Ctrl-C
            raise
        except BaseException:
            return FAILED
    return text


class Combined:
    """Several hooks as one, called one after the other."""

    def __init__(self, hooks: Iterable[Redact]) -> None:
        self.hooks = tuple(hooks)

    def __call__(self, text: str) -> str:
        """The text as all of them together give it back."""
        return redacted(text, self.hooks)


def combined(*hooks: Redact | None) -> Redact | None:
    """One hook that does what all of these do, in their order; None where there is none."""
    each: list[Redact] = []
    for hook in hooks:
        if hook is not None:
            each += hook.hooks if isinstance(hook, Combined) else (hook,)
    once = [hook for place, hook in enumerate(each) if hook not in each[:place]]
    return Combined(once) if len(once) > 1 else next(iter(once), None)


def kept_failure(failure: Failure, hooks: Iterable[Redact]) -> Failure:
    """What is stored and told of a failure."""
    hooks = tuple(hooks)
    # Redacted before it is cut: the cut might run through the middle of a secret, which the hook would then not know.
    return Failure(
        redacted(failure.type_name, hooks),
        abridged(redacted(failure.message, hooks), MAX_MESSAGE),
        abridged(redacted(failure.traceback, hooks), MAX_TRACEBACK),
    )


def kept_reason(text: str, hooks: Iterable[Redact]) -> str:
    """What is stored and told of a reason that a task gave: one line, as long at the most as the summary of a failure."""
    lines = redacted(clean(text), hooks).splitlines()
    line = " ".join([stripped for line in lines if (stripped := line.strip())])
    return line if len(line) <= MAX_REASON else f"{line[: MAX_REASON - 3]}..."


def redacted_tree(tree: Any, hooks: Iterable[Redact]) -> Any:
    """A stored value as JSON data, with every text in it redacted, keys too; lists and dicts in it are changed in place."""
    hooks = tuple(hooks)
    if not hooks:
        return tree

    def text(item: Any) -> Any:
        return redacted(item, hooks) if isinstance(item, str) else item

    root = [tree]
    waiting: list[Any] = [root]
    while waiting:  # not recursion: the tree may be as deep as a stored value can be
        inside = waiting.pop()
        if isinstance(inside, list):
            inside[:] = [text(item) for item in inside]
            waiting.extend(inside)
        elif isinstance(inside, dict):
            entries = dict(inside)
            inside.clear()
            for key, item in entries.items():
                if TAG in entries:  # its keys, and what the tag is, are the codec's words
                    inside[key] = item if key == TAG else text(item)
                else:
                    shown = text(key)
                    while shown in inside:  # redaction made two keys one
                        shown += "'"
                    inside[shown] = text(item)
            waiting.extend(inside.values())
    return root[0]
