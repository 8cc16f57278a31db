"""What runs the programs on the device: a process of its own, so that the agent can end it.

Talks JSON lines with the agent over its standard input and output.  A program is loaded once and
then run back to back; every inference is timed with the device synchronised, and the blocks of
inferences are reported about twice a second, so that stopping loses none.

Python 3.6 and the standard library alone.  Units: seconds on ``time.monotonic``.
"""

import argparse
import gc
import json
import os
import queue
import sys
import threading
import time
from typing import Any, Callable, List, Optional, Sequence, TextIO

from .engines import (
    ENGINES,
    Block,
    Message,
    Program,
    TrtexecEngine,
    WorkloadError,
    blocks_of,
    choose_engine,
    first_reason,
    installed_engines,
)

REPORT_EVERY_S = 0.5
_FIRST_REPORT_S = 0.05


class Workload:
    """The programs of one network, and the loop over one of them."""

    def __init__(self, output: TextIO, inbox: "queue.Queue[Optional[Message]]") -> None:
        self._output = output
        self._inbox = inbox
        self._engine = None  # type: Any
        self._names = []  # type: List[str]

    def send(self, message: Message) -> None:
        """One line to the agent."""
        self._output.write(json.dumps(message) + "\n")
        self._output.flush()

    def serve(self) -> int:
        """Answer requests until told to quit, or until the agent is gone."""
        while True:
            message = self._inbox.get()
            if message is None:
                return 0
            op = message.get("op")
            if op == "loop":
                try:
                    self._loop(message)
                except Exception as error:  # whatever an engine throws
                    # A loop has no reply to put its error in; after one, an engine cannot be trusted.
                    self.send({"event": "workload-ended", "reason": first_reason(error)})
                    return 1
                continue
            self.send(self._answer(message))
            if op == "quit":
                return 0

    def _answer(self, message: Message) -> Message:
        op = message.get("op")
        try:
            if op == "load":
                return {"ok": True, "result": self._load(message)}
            if op == "decision":
                return {"ok": True, "result": self._decision(message)}
            if op in ("stop", "quit"):
                return {"ok": True, "result": {}}
            raise WorkloadError("no operation '%s'" % op, "op", op)
        except WorkloadError as error:
            return error.reply()
        except Exception as error:  # whatever an engine throws becomes a reply
            return WorkloadError(first_reason(error)).reply()

    def _load(self, message: Message) -> Message:
        programs = [Program(fields) for fields in message.get("programs", [])]
        if not programs:
            raise WorkloadError("a load names at least one program", "programs")
        cores = [int(core) for core in message.get("cores") or []]
        if cores:
            try:
                os.sched_setaffinity(0, cores)  # before an engine starts its threads
            except OSError:
                raise WorkloadError(
                    "cores %s are not online" % cores, "cores", cores, "choose another power mode"
                ) from None
        name = choose_engine(str(message.get("engine", "auto")), [program.format for program in programs])
        self._engine = None
        try:
            engine = ENGINES[name](programs, str(message.get("processor", "auto")), len(cores) or None)
            if name != "trtexec":
                for program in programs:
                    run = engine.runner(program.name)
                    for _ in range(2):  # an engine may still compile in its first two runs
                        run()
        except WorkloadError:
            raise
        except Exception as error:
            raise WorkloadError(
                "%s cannot load the programs: %s; engines on this device: %s"
                % (name, first_reason(error), ", ".join(installed_engines())),
                "programs",
            ) from None
        self._engine, self._names = engine, [program.name for program in programs]
        half = " fp16" if any(program.dtype == "fp16" for program in programs) else ""
        return {"engine": engine.description + half}

    def _loop(self, message: Message) -> None:
        engine = self._loaded()
        name, runs_per_block = str(message["program"]), int(message["runs_per_block"])
        if name not in self._names:
            raise WorkloadError("no program '%s' is loaded; loaded are %s" % (name, ", ".join(self._names)))
        if isinstance(engine, TrtexecEngine):
            while True:
                runs = engine.invoke(name, runs_per_block, float(message["expected_s"]), self._is_called)
                if runs is None:
                    return
                self._report(name, blocks_of(runs, runs_per_block))
        else:
            self._loop_synchronized(name, engine.runner(name), runs_per_block)

    def _loop_synchronized(self, name: str, run: Callable[[], None], runs_per_block: int) -> None:
        clock = time.monotonic
        blocks = []  # type: List[Block]
        began = reported = clock()
        gc.collect()
        gc.disable()
        try:
            while True:
                stamps = [clock()]
                for _ in range(runs_per_block):
                    run()
                    stamps.append(clock())
                run_s = [stamps[i + 1] - stamps[i] for i in range(runs_per_block)]
                blocks.append((stamps[0], stamps[-1], run_s))
                is_last = self._is_called()
                # The first reports come sooner, for those who want but a few runs.
                every_s = min(REPORT_EVERY_S, max(_FIRST_REPORT_S, reported - began))
                if is_last or stamps[-1] - reported >= every_s:
                    self._report(name, blocks)
                    blocks, reported = [], clock()
                if is_last:
                    return
        finally:
            gc.enable()

    def _report(self, name: str, blocks: Sequence[Block]) -> None:
        rounded = [
            [round(start, 9), round(end, 9), [round(run, 9) for run in runs]] for start, end, runs in blocks
        ]
        self.send({"event": "blocks", "program": name, "blocks": rounded})

    def _is_called(self) -> bool:
        """Whether another request waits: any of them ends a loop."""
        return not self._inbox.empty()

    def _decision(self, message: Message) -> Message:
        decide = self._loaded().decider(int(message["n_classes"]))
        runs = max(1, int(message["runs"]))
        for _ in range(min(runs, 10)):
            decide()
        seconds = []
        for _ in range(runs):
            began = time.monotonic()
            decide()
            seconds.append(time.monotonic() - began)
        return {"seconds": sorted(seconds)[len(seconds) // 2]}

    def _loaded(self) -> Any:
        if self._engine is None:
            raise WorkloadError("no program is loaded", "op", None, "load one first")
        return self._engine


def _read(stream: TextIO, inbox: "queue.Queue[Optional[Message]]") -> None:
    for line in stream:
        if line.strip():
            inbox.put(json.loads(line))
    inbox.put(None)


def main(argv: List[str]) -> int:
    """Run programs as the agent asks, until it says ``quit`` or goes away."""
    argparse.ArgumentParser(prog="workload", description=main.__doc__).parse_args(argv)
    # Engines print; what they print goes to the agent's log, not between the JSON lines.
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    inbox = queue.Queue()  # type: queue.Queue[Optional[Message]]
    threading.Thread(target=_read, args=(sys.stdin, inbox), daemon=True).start()
    status = Workload(output, inbox).serve()
    output.flush()
    sys.stderr.flush()
    # Engines take their time to tear down what the kernel frees at once.
    os._exit(status)
