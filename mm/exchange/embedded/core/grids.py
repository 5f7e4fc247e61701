"""The price structures by name. A market tells its bands; nobody but who lists or changes a market needs the names."""

from typing import Final

from mm.domain.grid import PriceBand, TickGrid, tick_grid
from mm.domain.numbers import DOLLAR, Price

_TENTH: Final = 1_000
_HUNDREDTH: Final = 100

_STRUCTURES: Final[dict[str, tuple[int, int, int]]] = {
    "linear_cent": (0, 0, 100),
    "deci_cent": (0, 0, 10),
    "tapered_deci_cent": (_TENTH, 10, 100),
    "center_whole_edge_half_cent": (_TENTH, 50, 100),
    "center_whole_edge_quint_cent": (_TENTH, 20, 100),
    "center_half_edge_half_cent": (0, 0, 50),
    "center_half_edge_quint_cent": (_TENTH, 20, 50),
    "center_half_edge_deci_cent": (_TENTH, 10, 50),
    "center_quint_edge_quint_cent": (0, 0, 20),
    "center_quint_edge_deci_cent": (_TENTH, 10, 20),
    "center_centi_edge_centi_cent": (0, 0, 1),
    "center_deci_edge_centi_cent": (_HUNDREDTH, 1, 10),
}
"""Width of the edge bands, their step, the step between them; in 1/10,000 dollar. Width 0: one band."""

STRUCTURES: Final = tuple(_STRUCTURES)


def grid_of(structure: str) -> TickGrid:
    """The grid of a structure. Raises `ValueError` for an unknown name."""
    try:
        edge, edge_step, step = _STRUCTURES[structure]
    except KeyError:
        raise ValueError(f"unknown price structure {structure!r}: one of {', '.join(STRUCTURES)}") from None
    bands: list[tuple[int, int, int]] = [(0, DOLLAR, step)]
    if edge:
        bands = [(0, edge, edge_step), (edge, DOLLAR - edge, step), (DOLLAR - edge, DOLLAR, edge_step)]
    return tick_grid([PriceBand(Price(low), Price(high), Price(by)) for low, high, by in bands])
