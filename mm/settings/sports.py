"""The sports that the goal guard knows: `config/sports/*.toml`, by series ticker."""

import tomllib
from pathlib import Path

from mm.domain.errors import ConfigError
from mm.engine.goals.sport import Sport, parse_sport


def sports_folder() -> Path:
    """Where the files lie: inside an installed package, else beside it."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "profiles" / "sports"
    return shipped if shipped.is_dir() else package.parent / "config" / "sports"


def load_sports(folder: Path | None = None) -> dict[str, Sport]:
    """Every sport, by each of its series.

    Raises:
        ConfigError: A file that cannot be read, a key that means nothing, a series that two sports claim.
    """
    found: dict[str, Sport] = {}
    problems: list[str] = []
    for path in sorted((folder or sports_folder()).glob("*.toml")):
        try:
            with path.open("rb") as stream:
                sport = parse_sport(tomllib.load(stream), path.name)
        except ConfigError as error:
            problems += error.problems
            continue
        except (OSError, tomllib.TOMLDecodeError) as error:
            problems.append(f"{path.name}: cannot be read: {error}")
            continue
        for series in sport.series:
            if series in found:
                problems.append(f"{path.name}: series {series} belongs to {found[series].name} already")
            found[series] = sport
    if problems:
        raise ConfigError(problems)
    return found
