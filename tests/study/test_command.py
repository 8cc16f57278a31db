"""What the command line says and refuses, without a measured study."""

import signal
import subprocess
import sys
import time

import pytest
import yaml

from hadas.study import Study
from hadas.study.config import template


@pytest.fixture
def hadas(run_in_process):
    """Exit status, output and errors, each on one line."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code, out, errors = run_in_process(*arguments)
        return code, " ".join(out.split()), " ".join(errors.split())

    return run


def test_brackets_in_an_error_are_printed_as_they_are(hadas, tmp_path):
    code, _, said = hadas("fit", tmp_path / "[bold]a[/red].yaml")
    assert code == 2
    assert "[bold]a[/red].yaml" in said


def test_init_where_no_file_can_be(hadas, tmp_path):
    file = tmp_path / "file"
    file.write_text("keep me")
    for place, message in ((tmp_path, "is a folder"), (file / "study.yaml", "cannot be written")):
        for force in ((), ("--force",)):
            code, _, said = hadas("init", place, *force)
            assert (code, message in said, "name a file in" in said) == (2, True, True)
    assert hadas("init", file)[2].endswith("--force overwrites it")
    assert file.read_text() == "keep me"


def test_init_takes_only_a_folder_of_images_that_it_will_read(hadas, tmp_path):
    study = tmp_path / "study.yaml"
    for options, folder, message in (
        ((), tmp_path, "name the images that it holds with --data"),
        (("--data", "digits"), tmp_path, "name the images that it holds with --data"),
        (("--data", "cifar10"), tmp_path / "absent", "no such folder; name the one that holds cifar10"),
    ):
        code, _, said = hadas("init", study, "--data-path", folder, *options)
        assert (code, message in said, study.exists()) == (2, True, False), said
    assert hadas("init", study, "--preset", "gpu", "--data-path", tmp_path)[0] == 0
    assert yaml.safe_load(study.read_text())["data"]["path"] == str(tmp_path)


def test_demo_with_an_unknown_preset_leaves_nothing_behind(hadas, tmp_path):
    code, _, said = hadas("demo", "--directory", tmp_path / "new", "--preset", "smok")
    assert code == 2
    assert "known: ['demo', 'smoke']" in said
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("existing", "asked"), [("smoke", "demo"), ("demo", "smoke")])
def test_demo_says_when_another_study_continues(hadas, tmp_path, existing, asked):
    """Another process holds the study, so the command ends after it has said what it would do."""
    path = tmp_path / "study.yaml"
    path.write_text(template(path.name, existing))
    held = Study.open(path)
    held.lock()
    code, said, error = hadas("demo", "--directory", tmp_path, "--preset", asked)
    assert code == 2
    assert "another hadas" in error
    assert f"differs from preset '{asked}', so the study in it continues" in said
    assert "minute" not in said
    code, said, _ = hadas("demo", "--directory", tmp_path, "--preset", existing)
    assert "continues," not in said
    assert ("8 minutes" in said) == (existing == "demo")


def test_only_status_works_beside_another_process(hadas, tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(template(path.name, "smoke"))
    held = Study.open(path)
    held.lock()
    for command in ("measure", "fit", "search", "suggest", "run", "report"):
        code, _, said = hadas(command, path)
        assert (code, "another hadas" in said) == (2, True), command
    assert hadas("status", path)[0] == 0


def test_a_number_and_a_file_of_designs_exclude_each_other(hadas, tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(template(path.name, "smoke"))
    code, _, said = hadas("suggest", path, "-n", 2, "--design", tmp_path / "designs.yaml")
    assert code == 2
    assert "exclude each other" in said


def test_a_classifier_has_at_least_two_classes(hadas):
    assert hadas("space", "mini", "--classes", 1)[0] == 2
    code, said, _ = hadas("space", "mini", "--classes", 2)
    assert code == 0
    assert "at 2 classes" in said


def test_an_interrupt_ends_in_one_line(tmp_path):
    path = tmp_path / "study.yaml"
    document = yaml.safe_load(template(path.name, "smoke"))
    path.write_text(yaml.safe_dump({**document, "accuracy": {"supernet": {"steps": 100_000}}}))
    # A test run started in the background inherits an ignored SIGINT; a terminal's does not.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from hadas.cli import main; main()"
    )
    command = [sys.executable, "-u", "-c", program, "measure", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            assert "(100000)" in running.stdout.readline()  # the training has begun
            running.send_signal(signal.SIGINT)
            _, errors = running.communicate(timeout=60)
        finally:
            running.kill()
    assert running.returncode == 130
    assert errors.strip() == "interrupted; the same command continues"


ENDING = """
import multiprocessing, os, signal, sys, time
from hadas.cli.commands import app, main

def held(runs):
    runs.set()
    time.sleep(60)

@app.command()
def hold():
    fork = multiprocessing.get_context("fork")
    runs = fork.Event()
    child = fork.Process(target=held, args=(runs,))
    child.start()
    try:
        runs.wait()  # a signal that comes while a process is being forked is lost
        print("held", flush=True)
        time.sleep(60)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)  # an impatient second one
        child.terminate()
        child.join()
        print("put back", child.exitcode, flush=True)

sys.argv = ["hadas", "hold"]
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_told_to_end_puts_devices_back(number):
    with subprocess.Popen([sys.executable, "-c", ENDING], stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == "held\n"
        command.send_signal(number)
        assert command.stdout.read() == f"put back {-signal.SIGTERM}\n"
        assert command.wait(10) == 128 + number


def test_a_command_that_nothing_may_hang_up_is_not_hung_up():
    script = ENDING.replace(
        "import multi", "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\nimport multi"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == "held\n"
        command.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        command.send_signal(signal.SIGTERM)
        assert command.wait(10) == 128 + signal.SIGTERM
