"""What became of a run: the changes of its state and of its tasks', put together from its records. Pure; must not know stores.

Of the run and of each task, they are found in the order in which they must have been made; their times put them side by side.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter

from .late_dataclass import dataclass
from .models import TERMINAL_STATES, AttemptResult, ExecutionState, NoteKind, StateChange
from .notes import Before, tasks_before
from .records import AttemptRecord, NoteRecord, RunRecord, TaskRecord
from .retry_manager import failed_by_interruption
from .views import Workers, attempt_records, moment_of

NONE, SCHEDULED, RUNNING, SUCCESS, FAILED, SKIPPED, CANCELLED = ExecutionState

CUT_OFF = "it was cut off; noticed when it was continued"
STOPPED = "it was stopped, and waits to be continued"
UNKNOWN = "it was set back at some time before"

_ENDS = {
    AttemptResult.SUCCESS: SUCCESS,
    AttemptResult.CANCELLED: CANCELLED,
    AttemptResult.SKIPPED: SKIPPED,
}

_End = tuple[ExecutionState, int]
"""How a run ended, and when."""


def history_of(
    run: RunRecord,
    tasks: Sequence[TaskRecord],
    archived: Iterable[AttemptRecord],
    notes: Sequence[NoteRecord],
    around: Sequence[NoteRecord],
    of_run_too: bool = True,
) -> list[StateChange]:
    """All changes, in order of time.

    Args:
        run: the run.
        tasks: its tasks, or those that are asked for.
        archived: their attempts but for the latest ones.
        notes: the run's notes, in order.
        around: the notes of the runs that it is a subflow of.
        of_run_too: whether the run's own changes are asked for.
    """
    noted = _Noted(notes, around)
    records = attempt_records(tasks, archived)
    attempts: defaultdict[int, list[AttemptRecord]] = defaultdict(list)
    for attempt in records:
        attempts[attempt.position].append(attempt)
    moves = _run_path(run, records, noted).moves if of_run_too else []
    for task in tasks:
        moves.extend(_task_path(task, attempts[task.position], noted).moves)
    moves.sort(key=attrgetter("at", "resets", "rank"))
    return [
        StateChange(moment_of(move.at), run.id, move.task_id, move.source, move.target, move.attempt, move.reason, move.worker)
        for move in moves
    ]


@dataclass(slots=True)
class _Move:
    """A change, before it is told."""

    at: int
    task_id: str | None
    source: ExecutionState
    target: ExecutionState
    attempt: int | None
    reason: str | None
    worker: str | None
    resets: int
    """How many resets of the run came before it, as far as is known."""
    rank: int
    """Its place among those of one moment: resets come first, and the end of a run last."""


class _Noted:
    """What notes say to who looks for changes.

    Args:
        notes: the run's notes, in order.
        around: the notes of the runs that it is a subflow of.
    """

    def __init__(self, notes: Sequence[NoteRecord], around: Sequence[NoteRecord]) -> None:
        self.notes = notes
        self.around = sorted((note for note in around if note.kind in (NoteKind.DRIVE, NoteKind.INTERRUPT)), key=attrgetter("at"))
        self._workers = Workers((*notes, *around))
        self._cancelled = {note.at: note.by for note in (*notes, *around) if note.kind is NoteKind.CANCEL}
        self.before: defaultdict[str, list[tuple[NoteRecord, Before]]] = defaultdict(list)
        """Of each task the resets that name it, and where it stood before each of them."""
        self.wide: list[NoteRecord] = []
        """Resets of more tasks than they name."""
        self.numbers = {id(note): number for number, note in enumerate(notes, start=1) if note.kind is NoteKind.RESET}
        """Of each reset: notes may be equal."""
        for note in notes:
            named = tasks_before(note)
            for before in named:
                self.before[before.task_id].append((note, before))
            if note.tasks > len(named):
                self.wide.append(note)

    def worker(self, at: int, target: ExecutionState) -> str | None:
        """Who made a change: whoever drove the run, but for what was cancelled while nobody did."""
        cancelled = target is CANCELLED and at in self._cancelled
        return self._cancelled[at] if cancelled else self._workers.at(at)


class _Path:
    """Where a run or a task stands, and the changes that led there."""

    def __init__(self, noted: _Noted, task_id: str | None, at: int) -> None:
        self.noted = noted
        self.task_id = task_id
        self.moves: list[_Move] = []
        self.state = SCHEDULED
        self.at = at
        self.attempt: int | None = None
        self._resets = 0

    def begin(self) -> None:
        """A run is made."""
        self.moves.append(_Move(self.at, None, NONE, SCHEDULED, None, None, None, 0, 0))

    def go(self, target: ExecutionState, at: int, reason: str | None = None, worker: str | None = None) -> None:
        """Change the state, if it is another one."""
        if target is not self.state:
            worker = worker or self.noted.worker(at, target)
            # Not before the change ahead of it: a wall clock that was set back must not turn them round.
            self.at = max(self.at, at)
            self._add(target, reason, worker, (2 if target not in TERMINAL_STATES else 4) if self.task_id is None else 3)

    def _add(self, target: ExecutionState, reason: str | None, worker: str | None, rank: int) -> None:
        self.moves.append(_Move(self.at, self.task_id, self.state, target, self.attempt, reason, worker, self._resets, rank))
        self.state = target

    def set_back(self, note: NoteRecord) -> None:
        """A reset."""
        self._resets = self.noted.numbers[id(note)]
        if self.state is not SCHEDULED:
            why = "the subflow is tried again" if note.task_id is None else f"manual retry of {note.task_id!r}"
            self.at = max(self.at, note.at)
            self._add(SCHEDULED, why, note.by or self.noted.worker(note.at, SCHEDULED), 0 if self.task_id is None else 1)


# --- a task ---


def _task_path(task: TaskRecord, attempts: Sequence[AttemptRecord], noted: _Noted) -> _Path:
    """The changes of a task; `attempts` are all that were begun, in order."""
    path = _Path(noted, task.task_id, 0)
    named = noted.before.get(task.task_id, ())
    is_told = _resets_after(0, named, path)
    for index, attempt in enumerate(attempts):
        if index and not is_told and attempt.try_number <= attempts[index - 1].try_number:
            _reset_between(attempts[index - 1], attempt.started, path)
        path.attempt = attempt.number
        if attempt.started is not None:
            path.go(RUNNING, attempt.started)
        after = attempts[index + 1] if index + 1 < len(attempts) else None
        stood = next((before.state for _, before in named if before.attempts == attempt.number), None)
        at = attempt.started if attempt.ended is None else attempt.ended
        if attempt.result is not AttemptResult.RUNNING and at is not None:
            path.go(_end_of_attempt(attempt, after, stood, task), at, attempt.reason)
        is_told = _resets_after(attempt.number, named, path)
    if task.state is not RUNNING:
        if attempts and not is_told and task.started is None:
            _reset_between(attempts[-1], task.ended, path)
        if task.state in TERMINAL_STATES and task.ended is not None:  # which no attempt of it did
            path.go(task.state, task.ended, task.reason)
    return path


def _end_of_attempt(
    attempt: AttemptRecord, after: AttemptRecord | None, stood: ExecutionState | None, task: TaskRecord
) -> ExecutionState:
    """Where an attempt that is over left its task.

    Args:
        attempt: the attempt.
        after: the one that followed.
        stood: where the task stood when it was next set back, if a note says so and no other attempt came before that.
        task: the task as it stands now.
    """
    if attempt.result is AttemptResult.INTERRUPTED:
        return FAILED if failed_by_interruption(attempt.reason) else SCHEDULED
    if attempt.result is AttemptResult.FAILED:
        if stood is not None:
            again = stood is not FAILED
        elif after is not None:
            again = after.try_number > attempt.try_number
        else:  # a task that was set back has no start any more
            again = task.state is not FAILED and task.started is not None
        return SCHEDULED if again else FAILED
    return _ENDS.get(attempt.result, FAILED)


def _resets_after(attempts: int, named: Iterable[tuple[NoteRecord, Before]], path: _Path) -> bool:
    """The resets that name the task, and came when it had made so many attempts; whether there were any."""
    found = False
    for note, before in named:
        if before.attempts == attempts:
            found = True
            if before.state in TERMINAL_STATES and before.ended is not None:
                path.go(before.state, before.ended, before.reason)
            path.set_back(note)
    return found


def _reset_between(before: AttemptRecord, until: int | None, path: _Path) -> None:
    """A reset that must have been, after an attempt and before some moment; no note names the task."""
    ended = before.ended or 0
    found = [note for note in path.noted.wide if ended <= note.at and (until is None or note.at <= until)]
    if found:  # one at the very moment at which the attempt ended came before it, more likely than not
        path.set_back(next((note for note in found if note.at > ended), found[-1]))
    elif until is not None:
        path.go(SCHEDULED, until, UNKNOWN)


# --- the run ---


def _run_path(run: RunRecord, attempts: Iterable[AttemptRecord], noted: _Noted) -> _Path:
    """The changes of the run itself; `attempts` are those of all its tasks."""
    path = _Path(noted, None, run.created)
    path.begin()
    begun = sorted(attempt.started for attempt in attempts if attempt.started is not None)
    cut_off = sorted(attempt.ended or 0 for attempt in attempts if attempt.result is AttemptResult.INTERRUPTED)
    first = run.started
    for note, end in _noted_of_run(run, noted):
        if first is not None and _had_begun(note, end, first):
            path.go(RUNNING, first)
            began, first = note.kind is NoteKind.DRIVE and note.at == first, None
            if began:
                continue
        if note.kind is NoteKind.INTERRUPT or (note.kind is NoteKind.DRIVE and note.state is not RUNNING):
            _stop(path, note, cut_off)
        elif note.kind is NoteKind.DRIVE:
            path.go(SCHEDULED, note.at, CUT_OFF)
        if note.kind is NoteKind.DRIVE:
            path.go(RUNNING, note.at)
        elif note.kind is NoteKind.RESET:
            if end is not None:
                _end(path, end, begun)
            path.set_back(note)
    if first is not None:
        path.go(RUNNING, first)
    end = _end_of(run.state, run.ended)
    if end is not None:
        _end(path, end, begun)
    elif run.state is RUNNING:
        path.go(RUNNING, _first_from(begun, path.at))
    elif path.state is RUNNING:
        path.go(SCHEDULED, cut_off[-1] if cut_off else path.at, STOPPED)
    return path


def _had_begun(note: NoteRecord, end: _End | None, first: int) -> bool:
    """Whether the run was begun, which it was at the moment `first`, when a note was written; whatever the clocks said then."""
    if note.kind is not NoteKind.RESET or note.state is RUNNING:
        return True
    if end is not None:
        return end[0] is not CANCELLED or end[1] >= first
    return note.at >= first


def _noted_of_run(run: RunRecord, noted: _Noted) -> Iterator[tuple[NoteRecord, _End | None]]:
    """The notes that say something of the run's own state; with each how the run had ended before, if it had.

    Those of the runs around it count for as long as it was under way: it is stopped and continued with them.
    """
    own = [note for note in noted.notes if note.kind is not NoteKind.CANCEL]
    ends = [_end_of(note.state, note.ended) for note in own]
    others = iter(noted.around if run.started is not None else ())
    other = next(others, None)
    for index, note in enumerate((*own, None)):
        over = next((end for end in ends[index:] if end is not None), _end_of(run.state, run.ended))
        while other is not None and (note is None or other.at < note.at):
            if other.at > (run.started or 0) and (over is None or other.at < over[1]):
                yield other, None
            other = next(others, None)
        if note is not None:
            yield note, ends[index]


def _stop(path: _Path, note: NoteRecord, cut_off: Sequence[int]) -> None:
    """The run was stopped in an orderly way; where no note says when, it was when its attempts were cut off."""
    at = note.at
    if note.kind is NoteKind.DRIVE:
        found = bisect_right(cut_off, at)
        at = cut_off[found - 1] if found and cut_off[found - 1] >= path.at else at
    path.go(SCHEDULED, at, STOPPED)


def _end(path: _Path, end: _End, begun: Sequence[int]) -> None:
    state, at = end
    if state is not CANCELLED:  # when a subflow's run is driven again is not noted
        path.go(RUNNING, min(_first_from(begun, path.at), at))
    path.go(state, at)


def _first_from(begun: Sequence[int], at: int) -> int:
    """When the first attempt began from some moment on."""
    found = bisect_left(begun, at)
    return begun[found] if found < len(begun) else at


def _end_of(state: ExecutionState | None, ended: int | None) -> _End | None:
    return None if state is None or state not in TERMINAL_STATES or ended is None else (state, ended)
