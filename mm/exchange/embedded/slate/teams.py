"""The 32 teams of the league as the exchange's tickers and titles name them. Data only."""

import uuid
from typing import Final

import attrs

_NAMESPACE: Final = uuid.UUID("6f0f0d5e-7c0a-4a53-9a0c-2b1d3c8f7a41")


@attrs.frozen
class Club:
    """A team: `code` as in tickers (2-4 letters, not always the league's), `city` as in the market's sub title."""

    code: str
    city: str
    name: str

    @property
    def full_name(self) -> str:
        """`Vegas Golden Knights`."""
        return f"{self.city_name} {self.name}"

    @property
    def city_name(self) -> str:
        """The city without the letter that tells two teams of one city apart."""
        return self.city.removesuffix(" R").removesuffix(" I")

    @property
    def strike_id(self) -> str:
        """The stable id that `custom_strike` carries."""
        return str(uuid.uuid5(_NAMESPACE, self.code))


CLUBS: Final = (
    Club("ANA", "Anaheim", "Ducks"),
    Club("BOS", "Boston", "Bruins"),
    Club("BUF", "Buffalo", "Sabres"),
    Club("CAR", "Carolina", "Hurricanes"),
    Club("CBJ", "Columbus", "Blue Jackets"),
    Club("CGY", "Calgary", "Flames"),
    Club("CHI", "Chicago", "Blackhawks"),
    Club("COL", "Colorado", "Avalanche"),
    Club("DAL", "Dallas", "Stars"),
    Club("DET", "Detroit", "Red Wings"),
    Club("EDM", "Edmonton", "Oilers"),
    Club("FLA", "Florida", "Panthers"),
    Club("LA", "Los Angeles", "Kings"),
    Club("MIN", "Minnesota", "Wild"),
    Club("MTL", "Montreal", "Canadiens"),
    Club("NJ", "New Jersey", "Devils"),
    Club("NSH", "Nashville", "Predators"),
    Club("NYI", "New York I", "Islanders"),
    Club("NYR", "New York R", "Rangers"),
    Club("OTT", "Ottawa", "Senators"),
    Club("PHI", "Philadelphia", "Flyers"),
    Club("PIT", "Pittsburgh", "Penguins"),
    Club("SEA", "Seattle", "Kraken"),
    Club("SJ", "San Jose", "Sharks"),
    Club("STL", "St. Louis", "Blues"),
    Club("TB", "Tampa Bay", "Lightning"),
    Club("TOR", "Toronto", "Maple Leafs"),
    Club("UTAH", "Utah", "Mammoth"),
    Club("VAN", "Vancouver", "Canucks"),
    Club("VGK", "Vegas", "Golden Knights"),
    Club("WPG", "Winnipeg", "Jets"),
    Club("WSH", "Washington", "Capitals"),
)
