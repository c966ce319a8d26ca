"""One page: a training thread that steps up to four runs together, obeys commands and publishes frames.

Pace: 60 ticks a second, `speed` optimizer steps a tick, 20 published frames a second. Pictures of the layers
(histograms, walks, boundary) cost up to a quarter of the wall time and no more: they are drawn less often when a
network is large, and training goes on.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from firstlight.errors import FirstlightError, InputError
from firstlight.playground import config as configs
from firstlight.playground import jobs, views
from firstlight.playground.allocator import give_back
from firstlight.playground.choices import choices
from firstlight.playground.mailbox import Mailbox
from firstlight.playground.pace import DIAGNOSTIC_SHARE, FRAME, TICK, Budget
from firstlight.playground.presets import gallery
from firstlight.playground.protocol import MAX_RUNS, SPEEDS, Command, dump, error_message, pack
from firstlight.playground.recording import Recording
from firstlight.playground.run import OwnModel as OwnModel
from firstlight.playground.run import Points, Run

MAX_WAITING = 512


class Session:
    """The state of one page.

    Args:
        own: The user's model, batch and loss, where the playground was opened on one.
    """

    def __init__(self, own: OwnModel | None = None) -> None:
        self.mailbox = Mailbox()
        self._own = own
        self._commands: queue.Queue[Command | None] = queue.Queue(MAX_WAITING)
        self._runs: list[Run] = []
        self._points: Points | None = None
        self._speed: int | str = 1
        self._playing = False
        self._visible = True
        self._panels: frozenset[str] = frozenset(views.PANELS)
        self._budget = Budget()
        self._stale = True
        self._job: Iterator[jobs.Part] | None = None
        self._job_run = 0
        self._later: deque[Callable[[], None]] = deque()
        self._next_frame = 0.0
        self._stamp = 0  # number that the page gave its newest settings
        self._recorder = Recording()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._main, name="firstlight-playground", daemon=True)

    def start(self, notify: Callable[[], None]) -> None:
        """Begin; `notify` is called whenever the mailbox holds something."""
        self.mailbox.subscribe(notify)
        self._thread.start()

    def submit(self, command: Command) -> None:
        """Hand one command to the training thread.

        Raises:
            InputError: More commands wait than a person could have meant.
        """
        try:
            self._commands.put_nowait(command)
        except queue.Full:
            raise InputError(
                "session",
                got=f"more than {MAX_WAITING} waiting commands",
                expected="a page that waits for its answers",
                action="Reload the page.",
            ) from None

    def close(self) -> None:
        """End the training thread; safe to call twice and from any thread."""
        self._closed.set()
        with contextlib.suppress(queue.Full):
            self._commands.put_nowait(None)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=10.0)
        if not self._thread.is_alive():
            self._runs.clear()
            give_back()

    # --- the training thread -------------------------------------------------------------------------------------

    def _main(self) -> None:
        torch.set_num_threads(1)
        self._recorder.greet(self._hello())
        first = configs.RunConfig() if self._own is None else configs.OWN
        self._guard(lambda: self._build([first]))
        due = time.perf_counter()
        worked = True
        while not self._closed.is_set():
            busy = self._visible and (self._playing or self._stale or self._job is not None or bool(self._later))
            if worked and not busy:
                give_back()
            worked = busy
            self._obey(block=not busy)
            if self._closed.is_set():
                return
            if self._visible:
                self._guard(self._work, halts=True)
            due, now = due + TICK, time.perf_counter()
            if self._speed == "max" or due < now - FRAME:
                due = now  # nothing to wait for, or so late that ticks are lost, not made up for
            elif due > now:
                self._closed.wait(due - now)

    def _work(self) -> None:
        if self._playing:
            self._advance()
        if self._job is not None:
            self._draw_on(self._job)
        now = time.perf_counter()
        # frames keep to their own beat: one that comes late does not delay those after it
        if self._stale or (self._playing and now >= self._next_frame - TICK / 2):
            self._next_frame = max(self._next_frame + FRAME, now)
            self._frame(now)
        if self._later:
            self._guard(self._later.popleft())

    def _draw_on(self, job: Iterator[jobs.Part]) -> None:
        """Go on with a long picture for the better part of a frame's time."""
        deadline = time.perf_counter() + FRAME * (1.0 - DIAGNOSTIC_SHARE)
        while time.perf_counter() < deadline:
            part = next(job, None)
            if part is None:
                self._job = None
                return
            if part.slot:
                self._publish(part.slot, {"run": self._job_run, **part.header}, part.arrays)

    def _advance(self) -> None:
        steps = 1_000_000 if self._speed == "max" else int(self._speed)
        deadline = time.perf_counter() + FRAME * (1.0 - DIAGNOSTIC_SHARE)
        for _ in range(steps):
            moved = [run.advance() for run in self._runs]
            if not any(moved):
                self._playing = False
                self._stale = True
                self._state()
                return
            if time.perf_counter() > deadline:
                return

    def _frame(self, now: float) -> None:
        full = self._stale or self._budget.open(now)
        self._stale = False
        began = time.perf_counter()
        for index, run in enumerate(self._runs):
            header, arrays = views.cost(run)
            if full:
                more_header, more_arrays = views.layers(run, self._panels)
                header, arrays = {**header, **more_header}, {**arrays, **more_arrays}
            self._publish(f"run{index}", {"type": "frame", "run": index, "full": full, **header}, arrays)
        if full:
            self._budget.spend(began, time.perf_counter())

    def _publish(self, slot: str, header: dict[str, Any], arrays: dict[str, Any]) -> None:
        frame = pack(header, arrays)
        self._recorder.keep(slot, header, frame)
        self.mailbox.put_frame(slot if header.get("full", True) else f"{slot}:light", frame)

    def _guard(self, work: Callable[[], None], *, halts: bool = False) -> None:
        """Run one piece of work; what goes wrong is told to the page and stops neither the thread nor other pages.

        Args:
            work: What to do.
            halts: Whether training stops too where `work` was refused in words: what cannot be done now cannot be done
                sixty times a second.
        """
        try:
            work()
        except FirstlightError as error:
            self.mailbox.put_text(error_message(error))
            if halts:
                self._halt()
        except Exception as error:  # noqa: BLE001 - a user's model may raise anything; the page is told
            text = f"{type(error).__name__}: {error}"[:500]
            self.mailbox.put_text(dump({"type": "error", "where": "training", "text": text}))
            self._halt()

    def _halt(self) -> None:
        """Stop training and the long picture, and say so: the page's button follows the state."""
        self._playing = False
        self._job = None
        if self._runs:
            self._state()

    # --- commands ------------------------------------------------------------------------------------------------

    def _obey(self, *, block: bool) -> None:
        waiting: list[Command] = []
        while True:
            try:
                command = self._commands.get(timeout=1.0) if block else self._commands.get_nowait()
            except queue.Empty:
                break
            if command is None:
                return
            waiting.append(command)
            block = False
        # of settings that a dragged slider sent faster than they can be built, only the last ones count
        last = max((i for i, c in enumerate(waiting) if c.type == "configure"), default=-1)
        for index, command in enumerate(waiting):
            if command.type != "configure" or index == last:
                self._guard(lambda command=command: _HANDLERS[command.type](self, **command.fields))

    def _configure(self, runs: list[Any], stamp: int = 0, fresh: bool = False) -> None:
        self._stamp = stamp
        try:
            self._apply(runs, fresh)
        except FirstlightError:
            self._state()  # the page takes its controls back
            raise

    def _apply(self, runs: list[Any], fresh: bool) -> None:
        if not 1 <= len(runs) <= MAX_RUNS:
            raise InputError("configure.runs", got=f"{len(runs)} runs", expected=f"1 to {MAX_RUNS}")
        old = [run.config for run in self._runs]
        parsed: list[configs.RunConfig] = []
        for index, raw in enumerate(runs):
            base = old[index] if index < len(old) else configs.RunConfig()
            parsed.append(raw if isinstance(raw, configs.RunConfig) else configs.parse(raw, base))
        # side by side means side by side: same data, same seed, whatever else differs
        first = parsed[0]
        shared = {k: getattr(first, k) for k in ("data", "noise", "count", "split", "data_seed", "seed")}
        wanted = [first, *(replace(c, **shared) for c in parsed[1:])]
        goes_on = not fresh and len(wanted) == len(old) and wanted != old
        if goes_on and all(run.can_go_on(c) for run, c in zip(self._runs, wanted, strict=True)):
            for run, config in zip(self._runs, wanted, strict=True):
                run.go_on(config)
            self._state()
            self._recorder.state = self._state_message()
        else:
            self._build(wanted)

    def _build(self, wanted: list[configs.RunConfig]) -> None:
        # weights can be as given only where somebody gave some
        wanted = [replace(c, scheme="torch-default") if c.scheme == "given" and c.data != "own" else c for c in wanted]
        built = [Run(config, own=self._own, points=self._points) for config in wanted]
        self._runs = built  # only now: a config that cannot be built leaves the old runs standing
        self._job = None
        self._stale = True
        self._later.clear()
        self._state()
        self._recorder.restart(self._state_message())
        # what is quick comes at once; the prediction and the checks follow between frames, run after run
        for index, run in enumerate(built):
            self._publish_opening(index, *views.opening(run))
            self._later.append(lambda index=index, run=run: self._publish_prediction(index, run))
        for index, run in enumerate(built):
            self._later.append(lambda index=index, run=run: self._publish_report(index, run))

    def _publish_opening(self, index: int, header: dict[str, Any], arrays: dict[str, Any]) -> None:
        self._publish(f"open{index}", {"type": "open", "run": index, **header}, arrays)

    def _publish_prediction(self, index: int, run: Run) -> None:
        header, arrays = views.predicted(run)
        self._publish(f"band{index}", {"type": "band", "run": index, **header}, arrays)

    def _publish_report(self, index: int, run: Run) -> None:
        self._publish(f"report{index}", {"type": "report", "run": index, **views.report(run)}, {})

    def _diagnose(self, run: int) -> None:
        index = self._index(run)
        self._publish_report(index, self._runs[index])

    def _play(self) -> None:
        self._playing = True
        self._state()

    def _pause(self) -> None:
        self._playing = False
        self._stale = True
        self._state()

    def _step(self, count: int = 1) -> None:
        for _ in range(max(1, min(count, 1000))):
            for run in self._runs:
                run.advance()
        self._stale = True

    def _reset(self) -> None:
        self._build([run.config for run in self._runs])

    def _new_seed(self) -> None:
        seed = (self._runs[0].config.seed + 1) % configs.MAX_SEED
        self._build([replace(run.config, seed=seed) for run in self._runs])

    def _set_speed(self, value: int | str) -> None:
        if value not in SPEEDS:
            raise InputError("speed", got=repr(value)[:20], expected=f"one of {SPEEDS}")
        self._speed = value
        self._state()

    def _set_visible(self, value: bool) -> None:
        self._visible = value
        self._stale = self._stale or value

    def _set_panels(self, names: list[Any]) -> None:
        self._panels = frozenset(n for n in names if n in views.PANELS)
        self._stale = True

    def _draw(self, x: list[Any], y: list[Any]) -> None:
        self._use_points(Points.from_lists(x, y))

    def _csv(self, text: str) -> None:
        self._use_points(Points.from_csv(text))

    def _use_points(self, points: Points) -> None:
        self._points = points
        self._build([replace(run.config, data="custom") for run in self._runs])

    def _fix(self, run: int, code: str) -> None:
        index = self._index(run)
        wanted = [r.config for r in self._runs]
        wanted[index] = self._runs[index].fixed(code)
        self._build(wanted)

    def _walks(self, run: int, draws: int = 100) -> None:
        self._job = jobs.many_walks(jobs.drawn(self._chosen(run)), max(1, min(draws, 400)))

    def _strip(self, run: int, seeds: int = 25, steps: int = 200) -> None:
        self._job = jobs.seed_strip(jobs.drawn(self._chosen(run)), max(1, min(seeds, 100)), max(1, min(steps, 5000)))

    def _critical(self, run: int) -> None:
        self._job = jobs.critical_gain(self._chosen(run))

    def _chosen(self, run: int) -> Run:
        """The run that a long picture is of; one that is being drawn ends."""
        self._job, self._job_run = None, self._index(run)
        return self._runs[run]

    def _export(self, run: int) -> None:
        chosen = self._runs[self._index(run)]
        self.mailbox.put_text(dump({"type": "export", "run": run, "code": chosen.exported()}))

    def _share(self) -> None:
        self.mailbox.put_text(dump({"type": "share", "html": self._recorder.to_html()}))

    def _ping(self, sent: float = 0.0) -> None:
        self.mailbox.put_text(dump({"type": "pong", "sent": sent}))

    def _index(self, run: int) -> int:
        if not 0 <= run < len(self._runs):
            raise InputError("run", got=str(run)[:20], expected=f"0 to {len(self._runs) - 1}")
        return run

    def _state(self) -> None:
        self.mailbox.put_text(dump(self._state_message()))

    def _state_message(self) -> dict[str, Any]:
        runs = [{"config": run.config.to_dict(), "facts": run.facts} for run in self._runs]
        message = {"type": "state", "playing": self._playing, "speed": self._speed, "runs": runs}
        return {**message, "stamp": self._stamp}

    def _hello(self) -> dict[str, Any]:
        """What never changes while the page is open; sent once."""
        own = None if self._own is None else {"title": self._own.title, "loss": self._own.loss_title}
        message = {"type": "hello", "own": own, "max_runs": MAX_RUNS, **choices(), **gallery()}
        self.mailbox.put_text(dump(message))
        return message


_HANDLERS: dict[str, Callable[..., None]] = {
    "configure": Session._configure,
    "play": Session._play,
    "pause": Session._pause,
    "step": Session._step,
    "reset": Session._reset,
    "new_seed": Session._new_seed,
    "speed": Session._set_speed,
    "visible": Session._set_visible,
    "panels": Session._set_panels,
    "points": Session._draw,
    "csv": Session._csv,
    "fix": Session._fix,
    "walks": Session._walks,
    "strip": Session._strip,
    "diagnose": Session._diagnose,
    "critical": Session._critical,
    "export": Session._export,
    "share": Session._share,
    "ping": Session._ping,
}
