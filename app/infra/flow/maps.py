"""The mapped tasks of one run: their items are made, wait for those that they stream from, and settle the whole at the end.

Pure, like the machine that it is a part of. Must not know what runs an item, nor how the list was come by.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from .codec import join_list
from .errors import shortened
from .graph import Graph
from .map_items import Keys, by_whole, ids_of, keys_of, text_of
from .models import TERMINAL_STATES, ExecutionState
from .records import TaskRecord
from .steps import Step
from .task_rules import TaskRules
from .trigger_rules import FAILED as AS_FAILED
from .trigger_rules import RUN, SKIP_FAILED, SUCCEEDED, WAIT, TriggerRule, Verdict, decide
from .trigger_rules import SKIPPED as AS_SKIPPED

_SCHEDULED, _RUNNING = ExecutionState.SCHEDULED, ExecutionState.RUNNING
_SUCCESS, _FAILED, _SKIPPED = ExecutionState.SUCCESS, ExecutionState.FAILED, ExecutionState.SKIPPED

NOT_LISTED = "the list that it was made from does not have it any more"
"""Why an item is skipped that an earlier list had."""
NO_LIST = "the mapped task that it was of has ended without a list"
"""Why one is skipped where there is no later list."""


class Host(Protocol):
    """What the maps need of the run's machine."""

    tasks: dict[str, TaskRecord]
    """All records of the run, those of items included."""

    def may_start(self, step: Step, record: TaskRecord, now: int) -> None:
        """A task, or item, may start."""
        ...

    def mark_skipped(self, step: Step, record: TaskRecord, why: str, now: int) -> None:
        """Skip a record, whatever follows from that."""
        ...

    def wake(self, step: Step, record: TaskRecord) -> None:
        """Have an item that was skipped since no list had it wait again."""
        ...

    def listed(self, step: Step, whole: str, now: int) -> None:
        """A mapped task has its items: those that map over it may have theirs."""
        ...

    def settle(self, step: Step, record: TaskRecord, state: ExecutionState, text: str, details: str, now: int) -> None:
        """End a mapped task that runs: with its output, or with the reason why it has none."""
        ...


class Mapped:
    """One mapped task of a run, with its items.

    Args:
        record: of the whole.
        rule: its trigger rule; if it streams, its items go by it.
        known: the records of items that the run has of it.
    """

    __slots__ = ("classes", "index", "items", "known", "listed", "open", "record", "rule", "source", "streams")

    def __init__(self, record: TaskRecord, rule: TriggerRule, known: dict[str, TaskRecord]) -> None:
        self.record = record
        self.rule = rule
        self.known = known
        self.source: Mapped | None = None
        """The mapped task that it maps over, if it streams."""
        self.streams: list[Mapped] = []
        """The mapped tasks that map over this one."""
        self.items: list[TaskRecord] | None = None
        """In the order of the list; None until there is one."""
        self.listed = False
        """Whether the list was looked at since the run began here: an earlier drive may have made the items."""
        self.index: dict[str, int] = {}
        self.classes = bytearray()
        """What each item that has ended counts as."""
        self.open = 0
        """How many have not."""

    def __repr__(self) -> str:
        return f"<Mapped {self.record.task_id!r}: {len(self.known)} items, {self.open} open>"

    def ids(self, keys: Keys) -> list[str]:
        """What its items are called."""
        return ids_of(self.record.task_id, keys)

    def forget(self) -> None:
        """It is to begin afresh."""
        self.items, self.listed = None, False
        self.index.clear()

    def to_mend(self, cancelled: bool = True) -> list[str]:
        """The items that did not succeed, but for those that said so themselves: what a retry of the whole sets back.

        Args:
            cancelled: whether also those that were cancelled.
        """
        return [
            item.task_id
            for item in self.items or ()
            if item.state is _FAILED
            or (cancelled and item.state is ExecutionState.CANCELLED)
            or (item.state is _SKIPPED and item.started is None)
        ]

    def take(self, items: list[TaskRecord]) -> None:
        """Take up the items of a list."""
        self.items = items
        self.index = dict(zip([item.task_id for item in items], range(len(items))))
        self.classes = bytearray(len(items))
        self.open = 0
        for index, item in enumerate(items):
            if item.state not in TERMINAL_STATES:
                self.open += 1
            else:
                self.classes[index] = self._class_of(index, item)

    def _class_of(self, index: int, item: TaskRecord) -> int:
        if item.state is _SUCCESS:
            return SUCCEEDED
        if item.state is not _SKIPPED:
            return AS_FAILED
        # It said so itself, if it began; else what it streams from decided. If that was set back alone since then, nobody knows.
        by_failure = item.started is None and self.source is not None and self.verdict(index) in (SKIP_FAILED, WAIT)
        return AS_FAILED if by_failure else AS_SKIPPED

    def verdict(self, index: int) -> Verdict:
        """What the item that one of these streams from decides for it."""
        assert self.source is not None
        assert self.source.items is not None
        if index >= len(self.source.items) or self.source.items[index].state not in TERMINAL_STATES:
            return decide(self.rule, (0, 0, 0), 1)
        counts = [0, 0, 0]
        counts[self.source.classes[index]] = 1
        return decide(self.rule, counts, 0)


class Maps:
    """The mapped tasks of one run.

    Args:
        host: the run's machine.
        rules: the rules of the run's tasks, as far as they have any.
        order: the ids of all tasks, each after what it depends on.
    """

    def __init__(self, host: Host, rules: Mapping[str, TaskRules], order: Iterable[str]) -> None:
        self._host = host
        self._position = -1
        over = {task_id: said.map_over for task_id, said in rules.items() if said.map_over is not None and task_id in host.tasks}
        found = by_whole(host.tasks, over)
        self._wholes: dict[str, Mapped] = {}
        for task_id in order:
            map_over = over.get(task_id)
            if map_over is None:
                continue
            mapped = self._wholes[task_id] = Mapped(
                host.tasks[task_id], rules[task_id].trigger_rule or TriggerRule.ALL_SUCCESS, found[task_id]
            )
            mapped.source = self._wholes.get(map_over)
            if mapped.source is not None:
                mapped.source.streams.append(mapped)
            self._restore(mapped)

    @staticmethod
    def _restore(mapped: Mapped) -> None:
        """Take up the items that an earlier drive made."""
        keys = keys_of(mapped.record.input)
        if keys is None or (mapped.source is not None and mapped.source.items is None):
            return
        ids = mapped.ids(keys)
        if all(item_id in mapped.known for item_id in ids):
            mapped.take([mapped.known[item_id] for item_id in ids])

    def __repr__(self) -> str:
        return f"<Maps: {[*self._wholes.values()]}>"

    def __iter__(self) -> Iterator[Mapped]:
        """Each after the one that it streams from."""
        return iter(self._wholes.values())

    def whole(self, task_id: str) -> Mapped | None:
        """The mapped task of that id."""
        return self._wholes.get(task_id)

    def of_item(self, task_id: str) -> Mapped | None:
        """The mapped task that an item is of; None where the id is not that of an item."""
        if not task_id.endswith("]"):
            return None
        mapped = self._wholes.get(task_id.partition("[")[0])
        return mapped if mapped is not None and task_id in mapped.known else None

    # --- what happens ---

    def expand(self, step: Step, record: TaskRecord, keys: Keys, made: dict[str, TaskRecord], now: int) -> None:
        """A mapped task, which runs, has its list: its items are there from now on. Those that an earlier drive made stay.

        Args:
            step: takes the changes.
            record: of the mapped task.
            keys: of the items.
            made: a fresh record for each, in order: for those that the run does not have.
            now: the time.
        """
        mapped = self._wholes[record.task_id]
        if mapped.source is not None and mapped.source.items is None:  # it succeeded before it was mapped: its output is the list
            mapped.source = None
        mapped.take(self._add(step, mapped, made, now))
        mapped.listed = True
        record.input = text_of(keys)
        step.changes.tasks.append(record)
        self._host.listed(step, record.task_id, now)
        if not mapped.open:
            self._settle(step, mapped, now)
            return
        assert mapped.items is not None
        if mapped.source is None:
            for item in mapped.items:
                if item.state is _SCHEDULED:
                    self._host.may_start(step, item, now)
        else:
            self._told(step, [(mapped, index) for index, item in enumerate(mapped.items) if item.state is _SCHEDULED], now)

    def _add(self, step: Step, mapped: Mapped, made: dict[str, TaskRecord], now: int) -> list[TaskRecord]:
        tasks, known = self._host.tasks, mapped.known
        if self._position < 0:
            self._position = max(task.position for task in tasks.values())
        fresh = [item for item in made.values() if item.task_id not in known] if known else list(made.values())
        for position, item in enumerate(fresh, self._position + 1):
            item.position = position
        self._position += len(fresh)
        step.changes.tasks += fresh
        if not known:
            tasks.update(made)
            known.update(made)
            return fresh
        for item in fresh:
            tasks[item.task_id] = known[item.task_id] = item
        for item_id, item in known.items():
            if item_id not in made:
                if item.state not in TERMINAL_STATES:
                    self._host.mark_skipped(step, item, NOT_LISTED, now)
            elif item.state is _SKIPPED and item.started is None and item.reason in (NOT_LISTED, NO_LIST):
                self._host.wake(step, item)
        return [known[item_id] for item_id in made]

    def ended(self, step: Step, mapped: Mapped, item: TaskRecord, now: int) -> None:
        """An item has ended: those that stream from it are told, and the whole settles if it was the last."""
        index = mapped.index.get(item.task_id)
        if index is None or mapped.record.state is not _RUNNING:  # the whole was cancelled before
            return
        mapped.classes[index] = SUCCEEDED if item.state is _SUCCESS else AS_SKIPPED if item.state is _SKIPPED else AS_FAILED
        mapped.open -= 1
        self._told(step, [(stream, index) for stream in mapped.streams], now)
        if not mapped.open:
            self._settle(step, mapped, now)

    def cancelled(self, step: Step, mapped: Mapped, items: Iterable[TaskRecord], now: int) -> None:
        """Items were cancelled with the whole, which does not settle any more: those that stream from them are told."""
        indexes = [mapped.index[item.task_id] for item in items if item.task_id in mapped.index]
        for index in indexes:
            mapped.classes[index] = AS_FAILED
        mapped.open = 0
        self._told(step, [(stream, index) for index in indexes for stream in mapped.streams], now)

    def _told(self, step: Step, news: list[tuple[Mapped, int]], now: int) -> None:
        """What the ends of the items that they stream from decide for items, and for those that stream from these in turn."""
        skipped: list[Mapped] = []
        for mapped, index in news:  # grows while it is walked
            if not mapped.listed or mapped.items is None or mapped.record.state is not _RUNNING:
                continue
            if mapped.items[index].state is not _SCHEDULED:
                continue
            item, verdict = mapped.items[index], mapped.verdict(index)
            if verdict is RUN:
                self._host.may_start(step, item, now)
            elif verdict is not WAIT:
                assert mapped.source is not None
                assert mapped.source.items is not None
                self._host.mark_skipped(step, item, _why(mapped.rule, mapped.source.items[index]), now)
                mapped.classes[index] = AS_FAILED if verdict is SKIP_FAILED else AS_SKIPPED
                mapped.open -= 1
                if not mapped.open:
                    skipped.append(mapped)
                news.extend((stream, index) for stream in mapped.streams)
        for mapped in skipped:
            self._settle(step, mapped, now)

    def _settle(self, step: Step, mapped: Mapped, now: int) -> None:
        """All items have ended."""
        assert mapped.items is not None
        items, classes = mapped.items, mapped.classes
        if AS_FAILED in classes:
            causes = [f"{item.task_id}: {item.reason}" for item, kind in zip(items, classes) if kind == AS_FAILED]
            reason = f"{len(causes)} of {len(items)} items failed: {shortened(causes, '; ', 4)}"
            details = "\n  ".join([f"{len(causes)} of {len(items)} items failed.", *causes[:100]]) + "\n"
            self._host.settle(step, mapped.record, _FAILED, reason, details, now)
        elif items and SUCCEEDED not in classes:
            self._host.settle(step, mapped.record, _SKIPPED, f"all {len(items)} items were skipped", "", now)
        else:
            texts = ["null" if item.output is None or item.state is not _SUCCESS else item.output for item in items]
            self._host.settle(step, mapped.record, _SUCCESS, join_list(texts), "", now)

    def begin(self, step: Step, now: int) -> None:
        """The run goes on. A mapped task may have ended meanwhile, by its stored record: so have its items."""
        for mapped in self:
            if mapped.record.state in TERMINAL_STATES:
                self.drop_items(step, mapped.record, now)

    def drop_items(self, step: Step, record: TaskRecord, now: int) -> None:
        """Skip what waits of a mapped task's items, now that it has ended: it was set back, and did not come to its list."""
        mapped = self._wholes.get(record.task_id)
        for item in () if mapped is None else self.open_items(mapped):
            self._host.mark_skipped(step, item, NO_LIST, now)

    def open_items(self, mapped: Mapped) -> list[TaskRecord]:
        """The items that have not ended."""
        return [item for item in mapped.known.values() if item.state not in TERMINAL_STATES]

    # --- a manual retry ---

    def to_reset(self, graph: Graph, task_id: str, downstream: bool, goes_on: bool) -> tuple[list[str], set[str]]:
        """What a manual retry of a task or an item sets back, tasks and items; and those that go on with what they have.

        Args:
            graph: of the run.
            task_id: the task, or item.
            downstream: whether all that depends on it is set back, too.
            goes_on: whether it is to mend what did not succeed, instead of beginning afresh.
        """
        item_of = self.of_item(task_id)
        mapped = item_of or self.whole(task_id)
        kept: set[str] = set()
        parts: dict[str, list[int]] = {}
        whole: set[str] = set()
        unlisted = item_of is not None and task_id not in item_of.index
        if item_of is not None and unlisted:  # the whole finds out whether there is such an item; the others stay
            start = item_of.record.task_id
            parts[start] = []
            if goes_on:
                kept.add(task_id)
        elif mapped is not None and mapped.items is not None and (task_id in mapped.index or goes_on):
            mend = [task_id] if task_id in mapped.index else mapped.to_mend()
            parts[mapped.record.task_id] = [mapped.index[item_id] for item_id in mend]
            if goes_on:
                kept.update(item for item in mend if self._host.tasks[item].state is not _SKIPPED)
            start = mapped.record.task_id
        else:
            whole.add(task_id)
            start = task_id
            if goes_on:
                kept.add(task_id)
        behind = graph.descendants([start]) if downstream and start in graph else set[str]()
        for other in graph.order() if behind else ():
            if other in behind:
                self._spread(other, [up for up in graph.upstream(other) if up in whole or up in parts], parts, whole)
        affected: list[str] = []
        for other in graph if behind else (start,):
            found = self.whole(other)
            if other in whole:
                affected += [other, *(found.known if found is not None else ())]
            elif other in parts:
                assert found is not None
                items = found.items or []
                affected += [other, *(items[index].task_id for index in parts[other])]
                kept.add(other)
        return [*affected, task_id] if unlisted else affected, kept

    def _spread(self, task_id: str, upstream: list[str], parts: dict[str, list[int]], whole: set[str]) -> None:
        """Set a task back with what is upstream of it: some of its items, where it streams from some, and depends on no more."""
        mapped = self.whole(task_id)
        source = mapped.source.record.task_id if mapped is not None and mapped.source is not None else None
        if mapped is not None and mapped.items is not None and upstream == [source] and source in parts:
            parts[task_id] = [index for index in parts[source] if index < len(mapped.items)]
        else:
            whole.add(task_id)

    def is_done_with(self, mapped: Mapped, item: TaskRecord) -> bool:
        """Whether nobody waits for an item's output any more."""
        if mapped.record.state not in TERMINAL_STATES or mapped.record.state is _FAILED:
            return False  # of one that failed, a retry of the subflow that it stands in will put the list together
        index = mapped.index.get(item.task_id)
        for stream in mapped.streams:
            waits = stream.items is None or index is None or stream.items[index].state not in TERMINAL_STATES
            if waits and stream.record.state not in TERMINAL_STATES:
                return False
        return True


def _why(rule: TriggerRule, source: TaskRecord) -> str:
    """Why an item is skipped, given the one that it streams from."""
    what = {_FAILED: "failed", _SUCCESS: "succeeded", _SKIPPED: "was skipped"}.get(source.state, "was cancelled")
    said = f"upstream task {source.task_id!r} {what}"
    return said if rule is TriggerRule.ALL_SUCCESS else f"trigger rule '{rule}' was not met: {said}"
