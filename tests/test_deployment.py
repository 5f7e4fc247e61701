"""The files for running it for months: what they name exists, and the tools that judge them find nothing."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mm.settings import SETTINGS

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "config"
UNITS = ("mm.service", "mm-backup.service", "mm-backup.timer")


def unit(name: str) -> configparser.ConfigParser:
    """A unit file; of a repeated key the last counts."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(CONFIG / name)
    return parser


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    """`systemd-analyze verify`, with the program's path replaced by one that exists here."""
    program = Path(sys.executable).with_name("mm")
    for name in UNITS:
        (tmp_path / name).write_text(
            (CONFIG / name).read_text().replace("/opt/mm/.venv/bin/mm", str(program))
        )
    done = subprocess.run(
        ["systemd-analyze", "verify", *(str(tmp_path / name) for name in UNITS)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_service_lets_the_guardian_outlive_the_bot() -> None:
    """Only the bot is asked to stop; after its death the guardian has time; the loop's heartbeat is watched."""
    service = unit("mm.service")["Service"]

    assert (service["Type"], service["KillMode"], service["Restart"]) == ("notify", "mixed", "on-failure")
    assert int(service["WatchdogSec"]) >= 10
    assert int(service["TimeoutStopSec"]) >= 80
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    # Settings that came by EnvironmentFile= could not be reloaded.
    assert "EnvironmentFile" not in service


def test_what_the_container_files_name_exists() -> None:
    """Files that are copied or mounted, and settings that are set."""
    dockerfile = (CONFIG / "Dockerfile").read_text()
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE):
        assert [name for name in sources.split() if not (ROOT / name).exists()] == []
    assert set(re.findall(r"^\s+(?:ENV )?(MM_\w+|WEB_\w+)=", dockerfile, re.MULTILINE)) <= SETTINGS.keys()
    compose = yaml.safe_load((CONFIG / "compose.yml").read_text())
    for name, service in compose["services"].items():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (CONFIG / source).exists(), (name, volume)
            elif not source.startswith("$"):
                assert source in compose["volumes"], (name, volume)
        assert set(service.get("environment", {})) <= SETTINGS.keys()
    assert compose["services"]["bot"]["environment"]["WEB_HOSTS"] == "bot"
    scrape = yaml.safe_load((CONFIG / "prometheus.yml").read_text())
    assert scrape["scrape_configs"][0]["static_configs"] == [{"targets": ["bot:8750"]}]
    assert all((CONFIG / name).exists() for name in scrape["rule_files"])


def test_the_containers_first_process_is_a_shell_script() -> None:
    """It parses; what it does with a killed bot needs a process namespace of its own and was tried by hand."""
    subprocess.run(["sh", "-n", str(CONFIG / "container-entry.sh")], check=True, timeout=10)


def test_every_image_is_pinned() -> None:
    """No `latest`: an upgrade is somebody's decision."""
    images = re.findall(
        r"(?:FROM|image:) (\S+)", (CONFIG / "Dockerfile").read_text() + (CONFIG / "compose.yml").read_text()
    )

    assert len(images) == 4
    assert [image for image in images if ":" not in image or image.endswith(":latest")] == []
