"""What the bot costs while it quotes: CPU and memory of its process, over minutes, against the embedded exchange.

    python bench/idle.py [--minutes 10] [--games 16] [--speed 1]

Prints the bot's CPU (percent of a core), RSS at the first and last minute and their difference, and the connections it
holds. Linux only (reads /proc). Exit code 0 when the figures are inside the old bot's 10% of a core and 100 MB.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
WARM_UP_S = 15.0
MAX_CPU_PERCENT = 10.0
MAX_RSS_MB = 100.0


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_mb(pid: int) -> float:
    """Resident memory in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1e6


def established(pid: int) -> int:
    """TCP connections of a process in state ESTABLISHED."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    rows = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    return sum(1 for row in rows if row.split()[3] == "01" and row.split()[9] in inodes)


def main() -> int:
    """Run both processes and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--games", type=int, default=16)
    parser.add_argument("--speed", type=float, default=1.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ready_file, summary = Path(folder) / "ready.json", Path(folder) / "summary.json"
        command = ["exchange", "--speed", str(options.speed), "--games", str(options.games), "--seed", "1"]
        exchange = subprocess.Popen(
            [sys.executable, "-m", "mm", *command, "--ready-file", str(ready_file)],
            stdout=subprocess.DEVNULL,
        )
        try:
            while not ready_file.exists():
                if exchange.poll() is not None:
                    return 1
                time.sleep(0.1)
            ready = json.loads(ready_file.read_text())
            return measure(options, ready, Path(folder), summary)
        finally:
            exchange.terminate()
            exchange.wait()


def measure(options: argparse.Namespace, ready: dict[str, str], folder: Path, summary: Path) -> int:
    """Run the bot against a ready exchange and sample it."""
    environment = os.environ | {
        "KALSHI_ENV": "demo",
        "LIVE_TRADING_ENABLED": "true",
        "KALSHI_REST_URL": ready["rest_url"],
        "KALSHI_WS_URL": ready["ws_url"],
        "KALSHI_API_KEY": ready["key_id"],
        "KALSHI_PRIVATE_KEY_PATH": ready["private_key_path"],
        "MM_DATA_DIR": str(folder / "data"),
        "MAX_MARKETS_TO_TRADE": str(options.games),
        "WEB_ADDRESS": "off",
    }
    minutes = str(options.minutes + WARM_UP_S / 60)
    bot = subprocess.Popen(
        [sys.executable, "-m", "mm", "run", "--minutes", minutes, "--summary", str(summary)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(WARM_UP_S)
    started, cpu_before = time.monotonic(), cpu_s(bot.pid)
    samples: list[float] = []
    connections = 0
    cpu_after, now = cpu_before, started
    while now - started < options.minutes * 60 - 2 and bot.poll() is None:
        time.sleep(2.0)
        samples.append(rss_mb(bot.pid))
        connections = max(connections, established(bot.pid))
        cpu_after, now = cpu_s(bot.pid), time.monotonic()
    bot.wait()
    percent = 100 * (cpu_after - cpu_before) / (now - started)
    tenth = max(1, len(samples) // 10)
    first, last = sum(samples[:tenth]) / tenth, sum(samples[-tenth:]) / tenth
    result = json.loads(summary.read_text())
    print(f"{options.games} games at speed {options.speed:g} for {(now - started) / 60:.1f} minutes")
    print(f"CPU          {percent:6.2f} % of a core")
    print(f"RSS          {first:6.1f} MB first, {last:6.1f} MB last, {max(samples):6.1f} MB most")
    print(f"growth       {last - first:+6.1f} MB")
    print(f"connections  {connections:6d} (one WebSocket; the others are kept-alive HTTP)")
    print(f"fills        {result['fills']:6d}, resting at exit {result['orders_resting_at_exit']}")
    is_inside = percent < MAX_CPU_PERCENT and max(samples) < MAX_RSS_MB
    print("inside the old bot's 10 % and 100 MB" if is_inside else "OUTSIDE the old bot's 10 % and 100 MB")
    return 0 if is_inside and result["exit_code"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
