"""`make twin-clients`: published clients of Kalshi, each in an environment of its own, trade a day at `mm exchange`.

Each day (`day_*.py`) goes through reads, writes, batches, groups, the feed and fills, and fails on the first answer
that the client's own models refuse, on any resync of its feed, or on anything a trader would not expect. Where the
Python that a client needs is missing, that is said and the client is left out.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CLIENTS = {
    "official": ("kalshi-python-async==3.34.0", (3, 13)),
    "sdk": ("kalshi-sdk==22.4.0", (3, 12)),
    "pykalshi": ("pykalshi==2.0.0", (3, 11)),
}
_VERSIONS = ("3.13", "3.14", "3.12", "3.11")


def version_of(python):
    """(3, 13) of an interpreter, or None where it does not run."""
    code = "import sys; print(*sys.version_info[:2])"
    try:
        found = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=20)
    except OSError:
        return None
    return tuple(map(int, found.stdout.split())) if found.returncode == 0 else None


def pythons():
    """Interpreters worth a try: `TWIN_PYTHON`, those on the path, those of pyenv, this one."""
    if given := os.environ.get("TWIN_PYTHON"):
        yield given
    for version in _VERSIONS:
        if found := shutil.which(f"python{version}"):
            yield found
    if shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True).stdout.strip()
        for version in _VERSIONS:
            yield from sorted(map(str, Path(root, "versions").glob(f"{version}*/bin/python")))
    yield sys.executable


def find_python(least):
    """The first interpreter that is new enough."""
    return next((p for p in pythons() if (found := version_of(p)) and found >= least), None)


def environment(name):
    """The client's interpreter, installed when it is not there yet; None (said why) without a Python for it."""
    pin, least = CLIENTS[name]
    folder = ROOT / f".venv-twin-{name}"
    python = folder / "bin" / "python"
    stamp = folder / ".twin"
    if stamp.exists() and stamp.read_text() == pin:
        return python
    base = find_python(least)
    if base is None:
        print(f"{name:9} left out: {pin} needs Python {least[0]}.{least[1]}, and none was found", flush=True)
        return None
    subprocess.run([base, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", pin]
    subprocess.run(pip, check=True, stderr=subprocess.PIPE)
    stamp.write_text(pin)
    return python


class Exchange:
    """`mm exchange` as a child process."""

    def __init__(self, folder, name, seed):
        self.ready_file = Path(folder, f"ready-{name}.json")
        command = [sys.executable, "-m", "mm", "exchange", "--tier", "prestige", "--speed", "10"]
        command += ["--seed", str(seed), "--games", "6", "--ready-file", str(self.ready_file)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 30
        while not self.ready_file.exists():
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit("mm exchange did not start")
            time.sleep(0.05)
        self.ready = self.ready_file.read_text()

    def state(self):
        """Its counters."""
        root = json.loads(self.ready)["rest_url"].removesuffix("/trade-api/v2")
        with urllib.request.urlopen(f"{root}/control/state", timeout=5) as answer:
            return json.loads(answer.read())

    def stop(self):
        """End it; its exit code."""
        self.process.terminate()
        return self.process.wait(20)


def trade(name, python, folder, seed):
    """One client's day. True when it went well."""
    exchange = Exchange(folder, name, seed)
    environ = {"PATH": os.environ["PATH"], "TWIN_READY": exchange.ready, "PYTHONWARNINGS": "ignore"}
    try:
        found = subprocess.run(
            [str(python), str(HERE / f"day_{name}.py")],
            env=environ,
            capture_output=True,
            text=True,
            timeout=240,
        )
        state = exchange.state()
    except OSError as error:
        told = f"exit code {exchange.process.poll()}, client {found.returncode}: {found.stderr[-2000:]}"
        print(f"{name:9} FAILED: the exchange is gone ({error}; {told})", flush=True)
        return False
    finally:
        code = exchange.stop()
    if found.returncode or code or state["overflows"] or state["refused_429"]:
        print(f"{name:9} FAILED (client {found.returncode}, exchange {code}, {state})", flush=True)
        print(found.stdout[-2000:] + found.stderr[-6000:], flush=True)
        return False
    done = json.loads(found.stdout.strip().splitlines()[-1])
    told = ", ".join(f"{done[key]} {key}" for key in done if "." not in key)
    operations = sum("." in key for key in done)
    print(f"{name:9} ok: {CLIENTS[name][0]}, {operations} operations, {told}", flush=True)
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clients", nargs="*", help=f"some of {', '.join(CLIENTS)}; default all")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    names = options.clients or list(CLIENTS)
    if unknown := set(names) - set(CLIENTS):
        parser.error(f"unknown client {min(unknown)}")
    results = []
    with tempfile.TemporaryDirectory(prefix="mm-twin-") as folder:
        for name in names:
            python = environment(name)
            if python is not None:
                results.append(trade(name, python, folder, options.seed))
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed, {len(names) - len(results)} skipped")
    return 0 if all(results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
