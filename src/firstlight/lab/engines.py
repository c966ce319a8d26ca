"""Engines: who does the tasks. In this process, in several processes, or on a Ray cluster.

Whoever does a task writes its runs to the store, run by run, before it reports back. So what is finished
survives the death of a worker, of this driver, or of a node; the next start asks the store what is left.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, Protocol

from firstlight.errors import DataError, FirstlightError, InputError
from firstlight.lab.experiment import Task, part_of, run_key
from firstlight.lab.progress import listening
from firstlight.lab.store import Store

_PATIENCE = 3  # deaths without a finished task in between, before tasks are done one by one
_LOOK_S = 0.3  # seconds between two looks at how far the workers are
_SLOTS = 256

Inside = Callable[[float], object]  # runs' worth of work under way


class Engine(Protocol):
    """Does tasks and yields, after each, how many runs it wrote."""

    def __call__(self, tasks: Sequence[Task], url: str, inside: Inside | None = None) -> Iterator[int]:
        """Do the tasks against the store at `url`; `inside` hears the runs' worth of work under way."""
        ...


def pending(tasks: Sequence[Task], store: Store) -> list[Task]:
    """The tasks with the seeds that the store does not have yet and no earlier task does; empty ones are left out."""
    done: dict[str, set[str]] = {}
    left: list[Task] = []
    for task in tasks:
        part = part_of(task.part)
        if part.name not in done:
            done[part.name] = store.finished(part.name)
        seeds = tuple(s for s in task.seeds if run_key(part, task.config, s) not in done[part.name])
        done[part.name] |= {run_key(part, task.config, s) for s in seeds}
        if seeds:
            left.append(Task(task.part, task.config, seeds))
    return left


def perform(task: Task, url: str, inside: Inside | None = None) -> int:
    """Do one task and write its runs; returns their number.

    Args:
        task: What to do.
        url: The store.
        inside: Called now and then with the runs' worth of work that the task has done.
    """
    part, store = part_of(task.part), Store(url)
    runs = len(task.seeds)
    with listening(None if inside is None else lambda share: inside(share * runs)):
        results = part.run(task.config, task.seeds)
    if len(results) != len(task.seeds):
        raise InputError(task.part, got=f"{len(results)} results", expected=f"{len(task.seeds)}, one a seed")
    for seed, rows in zip(task.seeds, results, strict=True):
        store.write(part, task.config, seed, rows)
    return len(results)


def in_process(tasks: Sequence[Task], url: str, inside: Inside | None = None) -> Iterator[int]:
    """Do the tasks here, one after the other; yields the number of runs of each."""
    for task in tasks:
        yield perform(task, url, inside)


def in_processes(tasks: Sequence[Task], url: str, jobs: int, inside: Inside | None = None) -> Iterator[int]:
    """Do the tasks in `jobs` processes with one torch thread each.

    A worker that dies (out of memory, kill -9) takes its pool with it; a new pool goes on with what is
    unfinished.

    Raises:
        DataError: A task that kills its worker every time.
    """
    waiting, fruitless = list(tasks), 0
    while waiting:
        # after deaths without progress one task alone, so that the guilty one is known
        alone = fruitless >= _PATIENCE
        with _pool(1 if alone else jobs) as (pool, shares):
            running = {pool.submit(_perform_telling, task, url): task for task in (waiting[:1] if alone else waiting)}
            try:
                left = set(running)
                while left:
                    ended, left = wait(left, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
                    if inside is not None:
                        inside(sum(shares))
                    for future in ended:
                        runs = future.result()
                        waiting.remove(running[future])
                        fruitless = 0
                        yield runs
            except BrokenProcessPool:
                fruitless += 1
                if alone:
                    raise DataError(
                        f"{waiting[0].part}, {waiting[0].config}",
                        got="a worker that died every time",
                        expected="one that ends",
                        action="Look for memory that it cannot have; finished runs are kept.",
                    ) from None
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


@contextlib.contextmanager
def _pool(jobs: int) -> Iterator[tuple[ProcessPoolExecutor, Any]]:
    """A pool, and the memory in which its workers keep how far each is."""
    # variables and not calls: the BLAS libraries read them when a worker loads them
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        context = get_context("spawn")
        shares = context.RawArray("d", _SLOTS)  # without a lock, which a killed worker could take along
        with ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin_worker, initargs=(shares,)) as pool:
            yield pool, shares
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


_SHARES: Any = None  # of a worker process: where it keeps how far it is


def _perform_telling(task: Task, url: str) -> int:
    slot = os.getpid() % _SLOTS  # two workers in one slot would spoil nothing but the bar

    def inside(runs: float) -> None:
        _SHARES[slot] = runs

    try:
        return perform(task, url, inside)
    finally:
        inside(0.0)


def _begin_worker(shares: Any) -> None:
    import torch

    global _SHARES
    _SHARES = shares
    torch.set_num_threads(1)
    parent = os.getppid()

    def leave_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)  # the driver was killed: nobody is left to report to

    threading.Thread(target=leave_with_parent, daemon=True).start()


def on_ray(tasks: Sequence[Task], url: str, address: str | None) -> Iterator[int]:
    """Do the tasks on a Ray cluster; the store must be reachable from every node.

    A task whose worker or node dies is done again elsewhere. Finished runs are counted, their insides are not.

    Raises:
        InputError: Ray is not installed, or there is no cluster at the address.
    """
    try:
        import ray
        from ray.exceptions import RayTaskError
    except ImportError as error:
        raise InputError(
            "engine", got="'ray'", expected="Ray to be installed", action='Install "firstlight[cluster]".'
        ) from error
    started = not ray.is_initialized()
    if started:
        try:
            ray.init(address=address, log_to_driver=False, include_dashboard=False, configure_logging=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError("--address", got=f"{address!r} ({error})", expected="a running Ray cluster") from error
    try:
        remote = ray.remote(num_cpus=1, max_retries=-1, retry_exceptions=False)(_perform_single_threaded)
        waiting = [remote.remote(task, url) for task in tasks]
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1)
            for reference in done:
                try:
                    yield ray.get(reference)
                except RayTaskError as error:
                    cause = error.cause if isinstance(error.cause, FirstlightError) else error
                    raise cause from None
    finally:
        if started:
            ray.shutdown()


def _perform_single_threaded(task: Task, url: str) -> int:
    import torch

    torch.set_num_threads(1)
    return perform(task, url)


def engine(name: str, jobs: int = 1, address: str | None = None) -> Engine:
    """The engine of a name: "local" (here, or in processes where jobs > 1) or "ray".

    Raises:
        InputError: Another name, or jobs < 1.
    """
    if jobs < 1:
        raise InputError("--jobs", got=str(jobs), expected="at least 1")
    if name == "ray":
        return lambda tasks, url, inside=None: on_ray(tasks, url, address)
    if name != "local":
        raise InputError("--engine", got=repr(name), expected="'local' or 'ray'")
    if address is not None:
        raise InputError("--address", got=repr(address), expected="nothing without --engine ray")
    return in_process if jobs == 1 else lambda tasks, url, inside=None: in_processes(tasks, url, jobs, inside)
