"""A `dvc` and a `python` that start in a tenth of their time, for a workspace.

They stand first on the PATH. What DVC runs is the command of dvc.yaml with DVC's own environment,
folder and outputs; the script is forked as `forked_scripts` says, and DVC itself from a process
that has imported it. Any other command is the real python's.

A process so started does not end with DVC, nor has it a command line of its own: what is to be
killed or looked for is started by the real one (`Workspace.start`).
"""

import atexit
import json
import multiprocessing
import os
import shutil
import socket
import sys
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp

from forked_scripts import CONTEXT, become_script
from waiting import happens

LIBRARIES = (
    *("sklearn.ensemble", "scipy.optimize", "matplotlib.image", "jinja2", "rasterio.warp"),
    *("pyproj", "shapely.geometry", "exactextract.raster", "pystac.extensions.raster"),
    *("safetensors.torch", "matplotlib.backends.backend_agg", "fastcrc", "scipy.stats"),
    *("dvc.cli", "dvc.repo", "dvc.commands.repro", "dvc.commands.experiments.run"),
)
"""Beside those of `forked_scripts`: what some stages import, and DVC."""

MODULES = (("-m", "biomassters"), ("-m", "dvc"))
"""What is run of a module."""

COMMAND = """#!/bin/sh
exec '{python}' -IS '{folder}/ask.py' {command}"$@"
"""
ASK = """import json, os, socket, sys
command = sys.argv[1:]
is_module = tuple(command[:2]) in {modules!r}
if not (is_module or command and command[0].startswith("src/")):
    os.execv({python!r}, [{python!r}, *command])
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b" "], [0, 1, 2])
    server.sendall(json.dumps([os.getcwd(), command, dict(os.environ)]).encode())
    server.shutdown(socket.SHUT_WR)
    sys.exit(int(server.recv(16) or 255))
"""


@cache
def start_forked_python() -> Path:
    """Return the folder of such a `python`, which is there as long as this process."""
    folder = Path(mkdtemp(prefix="python-"))
    address = folder / "address"
    server = CONTEXT.Process(target=_serve, args=(str(address),))
    server.start()

    def end() -> None:
        server.kill()
        server.join()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    names = {"python": sys.executable, "address": str(address), "modules": MODULES}
    (folder / "ask.py").write_text(ASK.format(**names))
    for name, command in (("python", ""), ("dvc", "-m dvc ")):
        path = folder / name
        path.write_text(COMMAND.format(python=sys.executable, folder=folder, command=command))
        path.chmod(0o755)
    assert happens(address.exists)
    return folder


def _serve(address: str) -> None:
    """Fork a process for each that asks, as long as the process is there that started this one."""
    parent = os.getppid()
    for library in LIBRARIES:
        import_module(library)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        server.settimeout(1)
        while os.getppid() == parent:
            with suppress(TimeoutError):
                connection, _ = server.accept()
                if not os.fork():
                    server.close()
                    _answer(connection)
                connection.close()
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def _answer(connection: socket.socket) -> None:
    """Run a script in a process of its own, and tell its exit code."""
    connection.setblocking(True)
    _, outputs, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("rb") as request:
        folder, command, environment = json.loads(request.read())
    for number, output in enumerate(outputs):
        os.dup2(output, number)
        os.close(output)
    process = multiprocessing.get_context("fork").Process(
        target=become_script, args=(Path("src"), Path(folder), command, environment)
    )
    process.start()
    process.join()
    code = process.exitcode or 0
    connection.sendall(str(code if code >= 0 else 128 - code).encode())
    os._exit(0)
