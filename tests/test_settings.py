"""Settings: every bad one is told at once, by name; secrets are never shown; the nearest source wins."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mm.domain.errors import ConfigError
from mm.engine.parameters import PARAMETERS
from mm.exchange.kalshi.signing import load_signer
from mm.settings import SETTINGS, Environment, Secret, Settings, load_settings
from mm.settings.load import read_private_key

PEM = (
    ed25519.Ed25519PrivateKey.generate()
    .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    .decode()
)
HOOK = "https://discord.com/api/webhooks/123/very-secret-token"
KEYS = {"KALSHI_API_KEY": "0e2f-key-id", "KALSHI_API_SECRET": PEM}


def load(tmp_path: Path, environ: dict[str, str] | None = None, **files: str) -> Settings:
    """Load with an environment, and optionally the text of `.env` (dotenv) and of profiles (sim, demo, prod)."""
    profiles = tmp_path / "config"
    profiles.mkdir(exist_ok=True)
    for name, text in files.items():
        path = tmp_path / ".env" if name == "dotenv" else profiles / f"{name}.env"
        path.write_text(text)
    return load_settings(environ=environ or {}, dotenv=tmp_path / ".env", profiles=profiles)


def problems(tmp_path: Path, environ: dict[str, str], **files: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, environ, **files)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


# --- defaults and precedence ---


def test_nothing_set_is_the_simulation(tmp_path: Path) -> None:
    """No keys, no questions: sim, NHL, the reference strategy's parameters."""
    settings = load(tmp_path)

    assert settings.environment is Environment.SIM
    assert settings["SERIES_TICKER"] == ("KXNHLGAME",)
    assert (settings["BOT_NAME"], settings["MARKET_DATE"], settings["QUOTE_TTL_SEC"]) == ("mm", "today", None)
    assert settings.strategy.max_markets_to_trade == 16
    assert set(settings.values) == set(SETTINGS)


def test_the_nearest_source_wins(tmp_path: Path) -> None:
    """Command line > environment > .env > profile > default, each setting by itself."""
    names = ["SIM_SEED", "SIM_GAMES", "SIM_SPEED", "BOT_NAME", "QUOTE_TTL_SEC"]
    texts = {"sim": {}, "dotenv": {}, "environ": {}, "line": {}}  # type: dict[str, dict[str, str]]
    for i, found in enumerate(texts.values()):
        for name in names[: 4 - i]:
            found[name] = f"{20 + i}"
    files = {s: "".join(f"{n}={v}\n" for n, v in texts[s].items()) for s in ("sim", "dotenv")}
    load(tmp_path, **files)
    settings = load_settings(
        texts["line"], environ=texts["environ"], dotenv=tmp_path / ".env", profiles=tmp_path / "config"
    )

    assert settings["SIM_SEED"] == 23
    assert settings["SIM_GAMES"] == 22
    assert settings["SIM_SPEED"] == 21
    assert settings["BOT_NAME"] == "20"
    assert settings["QUOTE_TTL_SEC"] is None
    assert [settings.sources[name] for name in names] == [
        "command line",
        "environment",
        str(tmp_path / ".env"),
        str(tmp_path / "config" / "sim.env"),
        "default",
    ]


def test_strategy_parameters_come_from_the_same_sources(tmp_path: Path) -> None:
    """The environment over .env over the profile."""
    settings = load(
        tmp_path,
        {"BASE_SPREAD": "0.03"},
        dotenv="BASE_SPREAD=0.02\nSIZE_PER_FILL=5\n",
        sim="SIZE_PER_FILL=7\nMAX_MARKETS_TO_TRADE=4\n",
    )

    assert settings.strategy.base_spread == 300
    assert settings.strategy.size_per_fill == 500
    assert settings.strategy.max_markets_to_trade == 4


def test_the_profile_is_that_of_the_environment(tmp_path: Path) -> None:
    """KALSHI_ENV may come from .env, and chooses the profile from there."""
    files = {"sim": "SIM_GAMES=3\n", "demo": "SIM_GAMES=5\n"}
    settings = load(tmp_path, KEYS, dotenv="KALSHI_ENV=demo\n", **files)

    assert settings["SIM_GAMES"] == 5


@pytest.mark.parametrize("name", ["sim", "demo", "prod"])
def test_the_shipped_profiles_are_good(tmp_path: Path, name: str) -> None:
    """Each profile of the project loads with keys and nothing else; prod stays on paper."""
    settings = load_settings(environ={"KALSHI_ENV": name, **KEYS}, dotenv=tmp_path / "none")

    assert settings["LIVE_TRADING_ENABLED"] is False
    assert settings.orders_on_paper(force=False) == (name != "sim")
    assert settings.orders_on_paper(force=True)


def test_venues(tmp_path: Path) -> None:
    """Demo and prod have their hosts; own URLs replace them; trailing slashes do not matter."""
    demo = load(tmp_path, {"KALSHI_ENV": "demo", **KEYS})
    assert demo.rest_url == "https://external-api.demo.kalshi.co/trade-api/v2"
    assert demo.ws_url == "wss://external-api-ws.demo.kalshi.co/trade-api/ws/v2"
    urls = {
        "KALSHI_REST_URL": "http://127.0.0.1:80/trade-api/v2/",
        "KALSHI_WS_URL": "ws://localhost:80/trade-api/ws/v2",
    }
    own = load(tmp_path, {"KALSHI_ENV": "demo", "LIVE_TRADING_ENABLED": "true", **KEYS, **urls})
    assert own.rest_url == "http://127.0.0.1:80/trade-api/v2"
    assert own.has_own_urls
    assert not own.orders_on_paper(force=False)


# --- bad values ---


BAD = {
    "KALSHI_ENV": "production",
    "LIVE_TRADING_ENABLED": "maybe",
    "BOT_NAME": "my bot!",
    "SERIES_TICKER": "KXNHLGAME;KXNBAGAME",
    "MARKET_DATE": "12.10.2026",
    "QUOTE_TTL_SEC": "5",
    "WEB_ADDRESS": "8750",
    "SIM_SPEED": "-1",
    "SIM_GAMES": "many",
    "KALSHI_REST_URL": "http://example.com/trade-api/v2",
    "DISCORD_WEBHOOK_URL": "ftp://x",
    "BASE_SPREAD": "-0.01",
    "SIZE_PER_FILL": "ten",
    "MAX_MARKETS_TO_TRADE": "0",
    "DAILY_LOSS_LIMIT": "nan",
}


def test_all_bad_settings_are_told_together_each_by_name(tmp_path: Path) -> None:
    """One line each, with what is allowed; nothing hides behind the first one."""
    found = problems(tmp_path, BAD)

    assert len(found) == len(BAD)
    for name in BAD:
        (line,) = [text for text in found if text.startswith(name)]
        assert "allowed" in line or "must be" in line
    assert all(BAD[n] in next(t for t in found if t.startswith(n)) for n in BAD if n != "DISCORD_WEBHOOK_URL")


def test_what_only_shows_together_is_told_beside_bad_values(tmp_path: Path) -> None:
    """Missing keys and a missing loss limit are found in the same round as a bad number."""
    found = problems(
        tmp_path,
        {"KALSHI_ENV": "prod", "LIVE_TRADING_ENABLED": "true", "BASE_SPREAD": "-1", "SIM_GAMES": "x"},
    )

    names = "\n".join(found)
    for name in ("BASE_SPREAD", "SIM_GAMES", "KALSHI_API_KEY", "KALSHI_PRIVATE_KEY_PATH", "DAILY_LOSS_LIMIT"):
        assert name in names
    assert len(found) == 5


def test_a_bad_loss_limit_is_not_also_called_missing(tmp_path: Path) -> None:
    """One problem, one line."""
    found = problems(
        tmp_path,
        {"KALSHI_ENV": "prod", "LIVE_TRADING_ENABLED": "true", "DAILY_LOSS_LIMIT": "lots", **KEYS},
    )

    assert len(found) == 1
    assert found[0].startswith("DAILY_LOSS_LIMIT='lots'")


def test_the_source_of_a_bad_value_is_told(tmp_path: Path) -> None:
    """Which file to mend."""
    (found,) = problems(tmp_path, {}, dotenv="SIM_GAMES=0\n")

    assert str(tmp_path / ".env") in found


@pytest.mark.parametrize("name", ["0", "-1", "nan", "inf", "1e3", "0x10", "", " "])
def test_numbers(tmp_path: Path, name: str) -> None:
    """What is out of range or no plain number is refused; an empty text is the default."""
    if not name.strip():
        assert load(tmp_path, {"MAX_MARKETS_TO_TRADE": name}).strategy.max_markets_to_trade == 16
        return
    (found,) = problems(tmp_path, {"MAX_MARKETS_TO_TRADE": name})
    assert found.startswith("MAX_MARKETS_TO_TRADE")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"KALSHI_ENV": "demo"}, ["KALSHI_API_KEY", "KALSHI_PRIVATE_KEY_PATH"]),
        ({"KALSHI_ENV": "demo", "KALSHI_API_KEY": "k"}, ["KALSHI_PRIVATE_KEY_PATH"]),
        ({"KALSHI_REST_URL": "http://127.0.0.1:1/trade-api/v2"}, ["KALSHI_REST_URL and KALSHI_WS_URL"]),
        ({"KALSHI_ENV": "prod", "LIVE_TRADING_ENABLED": "true", **KEYS}, ["DAILY_LOSS_LIMIT"]),
    ],
)
def test_what_belongs_together(tmp_path: Path, given: dict[str, str], words: list[str]) -> None:
    """Keys outside the simulation, both URLs or none, a loss limit for real money."""
    found = problems(tmp_path, given)

    assert len(found) == len(words)
    assert all(word in line for word, line in zip(words, found, strict=True))


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/x",
        "http://127.0.0.1.example.com/x",
        "ftp://127.0.0.1/x",
        "127.0.0.1:80",
        "https:///x",
    ],
)
def test_plain_http_is_for_loopback_only(tmp_path: Path, url: str) -> None:
    """A key never goes over the net in the clear."""
    found = problems(tmp_path, {"KALSHI_REST_URL": url, "KALSHI_WS_URL": "ws://127.0.0.1/x"})

    assert [line for line in found if line.startswith("KALSHI_REST_URL=")]


# --- the key ---


def test_a_key_with_literal_backslash_n_works(tmp_path: Path) -> None:
    """As it survives a .env file and a CI variable: one line with \\n in it."""
    one_line = PEM.strip().replace("\n", "\\n")
    settings = load(
        tmp_path, {"KALSHI_ENV": "demo", "KALSHI_API_KEY": "k"}, dotenv=f'KALSHI_API_SECRET="{one_line}"\n'
    )

    assert load_signer("k", read_private_key(settings).reveal()).sign(b"x")


@pytest.mark.parametrize("literal", [True, False])
def test_a_key_file_is_read(tmp_path: Path, literal: bool) -> None:
    """With line breaks or with literal ones."""
    path = tmp_path / "key.pem"
    path.write_text(PEM.replace("\n", "\\n") if literal else PEM)
    settings = load(
        tmp_path, {"KALSHI_ENV": "demo", "KALSHI_API_KEY": "k", "KALSHI_PRIVATE_KEY_PATH": str(path)}
    )

    assert load_signer("k", read_private_key(settings).reveal()).sign(b"x")


@pytest.mark.parametrize("kind", ["missing", "folder", "binary"])
def test_a_key_file_that_cannot_be_read_is_named(tmp_path: Path, kind: str) -> None:
    """The setting, the path, the reason; no traceback's worth of content."""
    path = tmp_path / "key.pem"
    if kind == "folder":
        path.mkdir()
    elif kind == "binary":
        path.write_bytes(b"\xff\xfe\x00")
    settings = load(
        tmp_path, {"KALSHI_ENV": "demo", "KALSHI_API_KEY": "k", "KALSHI_PRIVATE_KEY_PATH": str(path)}
    )

    with pytest.raises(ConfigError, match=r"KALSHI_PRIVATE_KEY_PATH.*cannot be read") as caught:
        read_private_key(settings)
    assert str(path) in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_malformed_key_is_told_by_its_setting_only() -> None:
    """Not a word of what was given."""
    with pytest.raises(ConfigError, match="KALSHI_API_SECRET") as caught:
        load_signer("k", PEM.replace("M", "#", 3), setting="KALSHI_API_SECRET")

    for line in PEM.splitlines()[1:-1]:
        assert line not in str(caught.value)


# --- secrets ---


def all_text(error_or_settings: object) -> str:
    return f"{error_or_settings!r} {error_or_settings} {getattr(error_or_settings, 'problems', '')}"


def test_secrets_are_in_no_repr(tmp_path: Path) -> None:
    """Neither the settings' nor that of a single value."""
    settings = load(tmp_path, {"KALSHI_ENV": "demo", **KEYS, "DISCORD_WEBHOOK_URL": HOOK})
    shown = all_text(settings) + repr(settings.values) + f"{settings['KALSHI_API_SECRET']}"

    assert "very-secret-token" not in shown
    assert PEM.splitlines()[1] not in shown
    assert settings["DISCORD_WEBHOOK_URL"].reveal() == HOOK


def test_secrets_are_in_no_message(tmp_path: Path) -> None:
    """A bad webhook is told without its text."""
    found = problems(tmp_path, {"DISCORD_WEBHOOK_URL": HOOK.replace("https", "gopher"), "SIM_GAMES": "x"})

    assert "very-secret-token" not in "\n".join(found)
    assert any(line.startswith("DISCORD_WEBHOOK_URL=(hidden)") for line in found)


@pytest.mark.parametrize("setting", ["KALSHI_PRIVATE_KEY_PATH", "KALSHI_API_KEY"])
def test_a_key_in_the_wrong_setting_is_told_and_not_shown(tmp_path: Path, setting: str) -> None:
    """The PEM itself where its file, or the key's id, belongs: named, and not a letter of it printed."""
    given = {"KALSHI_ENV": "demo", "KALSHI_API_KEY": "k", "KALSHI_PRIVATE_KEY_PATH": "x.pem", setting: PEM}

    (found,) = problems(tmp_path, given)

    assert setting in found
    assert "KALSHI_API_SECRET" in found
    assert not any(line in found for line in PEM.splitlines())


def test_a_secret_is_empty_or_not() -> None:
    """And says so without saying more."""
    assert not Secret("")
    assert (repr(Secret("")), repr(Secret("abc"))) == ("Secret(empty)", "Secret(***)")
    assert "abc" not in f"{Secret('abc')}{[Secret('abc')]}"


def test_an_unreadable_env_file_is_a_problem_of_its_own(tmp_path: Path) -> None:
    """Binary rubbish in .env: told with its path."""
    (tmp_path / ".env").write_bytes(b"\xff\xfe\x00")

    (found,) = problems(tmp_path, {})

    assert str(tmp_path / ".env") in found


def test_every_setting_is_described() -> None:
    """Name, allowed values and effect: the documentation and the messages are made of them."""
    assert {row.name for row in SETTINGS.values()}.isdisjoint({p.name for p in PARAMETERS})
    for row in SETTINGS.values():
        assert row.effect
        assert row.allowed
