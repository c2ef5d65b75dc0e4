"""Which PE runs which LP. Nothing here can change what is computed, only how many messages cross."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np

from tidewarp.errors import OperatorError
from tidewarp.kernel.arguments import whole
from tidewarp.kernel.model import Links, Model
from tidewarp.kernel.options import Options

__all__ = ["check_workers", "cut", "partition", "sources_of"]

Neighbours: TypeAlias = list[dict[int, int]]
"""For each LP the LPs that are linked with it, in either direction, and how many links that are."""

_DENSE_MOST = 200  # LPs up to which a full eigendecomposition is quicker than an iterative one


def partition(model: Model, options: Options, pes: int | None = None) -> list[int]:
    """The PE (0 to ``pes`` - 1) of each LP; ``pes`` is ``options.workers`` unless given (workers of all ranks together).

    ``blocks``: consecutive LPs, group by group; sizes differ by one at most, the larger ones first. ``graph``: few links
    across, sizes as with ``blocks`` (METIS may differ by a few); a model without links gets blocks. It uses METIS if
    pymetis is installed, else halves the LPs again and again in the order of :func:`_line_up`. An array is taken as it is.

    Raises:
        OperatorError: more PEs than LPs; an array of another length, with another PE in it, or that leaves a PE empty.
    """
    pes = options.workers if pes is None else pes
    check_workers(pes, model.n_lps)
    if not isinstance(options.partition, str):
        return _checked(options.partition, model.n_lps, pes)
    model.freeze()
    if options.partition == "blocks" or model.links is None or pes == 1:
        return _blocks(model.n_lps, pes)
    neighbours = _neighbours(model.links)
    return _by_metis(neighbours, pes) or _by_halves(neighbours, pes)


def check_workers(workers: int, n_lps: int) -> None:
    """Refuse more workers than LPs."""
    if workers > n_lps:
        raise OperatorError(
            f"{workers} workers for {n_lps} LPs", "each worker runs one LP at least", f"use at most {n_lps}"
        )


def cut(links: Links, pe_of: Sequence[int]) -> int:
    """How many declared links cross from one PE to another."""
    owners = np.asarray(pe_of)
    return int(np.count_nonzero(owners[sources_of(links)] != owners[links.dst]))


def sources_of(links: Links) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The LP that each declared link leaves from."""
    return np.repeat(np.arange(len(links.first) - 1, dtype=np.int64), np.diff(links.first))


def _checked(given: Sequence[Any], n_lps: int, pes: int) -> list[int]:
    pe_of = [-1 if (number := whole(pe)) is None else number for pe in given]
    if len(pe_of) != n_lps:
        raise OperatorError(f"a partition of {len(pe_of)} LPs", f"the model has {n_lps}", "give the PE of each LP")
    for lp, pe in enumerate(pe_of):
        if not 0 <= pe < pes:
            raise OperatorError(
                f"LP {lp} on PE {given[lp]!r}",
                f"the PEs are 0 to {pes - 1}",
                "correct the partition, or the number of workers",
            )
    if idle := set(range(pes)) - set(pe_of):
        raise OperatorError(
            f"a partition without LPs for PE {min(idle)}", "each worker runs one LP at least", "use fewer workers"
        )
    return pe_of


def _blocks(n_lps: int, pes: int) -> list[int]:
    size, larger = divmod(n_lps, pes)
    return [pe for pe in range(pes) for _ in range(size + (pe < larger))]


def _neighbours(links: Links) -> Neighbours:
    neighbours: Neighbours = [{} for _ in range(len(links.first) - 1)]
    for src, dst in zip(sources_of(links).tolist(), links.dst.tolist(), strict=True):
        if src != dst:
            neighbours[src][dst] = neighbours[src].get(dst, 0) + 1
            neighbours[dst][src] = neighbours[dst].get(src, 0) + 1
    return neighbours


def _by_metis(neighbours: Neighbours, pes: int) -> list[int] | None:
    """METIS's parts; None without pymetis, or where METIS leaves a part empty."""
    if find_spec("pymetis") is None:
        return None
    import pymetis

    xadj = np.cumsum([0, *map(len, neighbours)]).tolist()
    adjncy = [lp for row in neighbours for lp in row]
    weights = [links for row in neighbours for links in row.values()]
    _, parts = pymetis.part_graph(pes, xadj=xadj, adjncy=adjncy, eweights=weights)
    return list(parts) if len(set(parts)) == pes else None


def _by_halves(neighbours: Neighbours, pes: int) -> list[int]:
    pe_of = [0] * len(neighbours)
    sizes = [_blocks(len(neighbours), pes).count(pe) for pe in range(pes)]
    work = [(list(range(len(neighbours))), 0, pes)]
    while work:
        lps, first, last = work.pop()
        if last - first == 1:
            for lp in lps:
                pe_of[lp] = first
            continue
        middle = (first + last + 1) // 2
        line = _line_up(lps, neighbours)
        at = sum(sizes[first:middle])
        work += [(sorted(line[:at]), first, middle), (sorted(line[at:]), middle, last)]
    return pe_of


def _line_up(lps: list[int], neighbours: Neighbours) -> list[int]:
    """These LPs in a line in which linked ones are near each other; a cut of the line crosses few links.

    By the Fiedler vector of the links among them if scipy is installed (spectral bisection: Pothen, Simon, Liou
    1990), else breadth first from an LP at the rim: the last one that such a walk from the lowest number reaches.
    Unconnected parts stand one after the other, in the order of their lowest numbers.
    """
    inside = set(lps)
    line: list[int] = []
    for lp in lps:
        if lp in inside:
            part = _walk(lp, inside, neighbours)
            inside.difference_update(part)
            line += _fiedler(sorted(part), neighbours) or _walk(part[-1], set(part), neighbours)
    return line


def _walk(start: int, inside: set[int], neighbours: Neighbours) -> list[int]:
    """The LPs of ``inside`` that ``start`` is connected with, breadth first, lower numbers first."""
    seen = {start}
    found = []
    queue = deque([start])
    while queue:
        lp = queue.popleft()
        found.append(lp)
        reached = sorted(other for other in neighbours[lp] if other in inside and other not in seen)
        seen.update(reached)
        queue.extend(reached)
    return found


def _fiedler(part: list[int], neighbours: Neighbours) -> list[int] | None:
    """A connected part in the order of the second eigenvector of its Laplacian; None where that cannot be had."""
    if len(part) < 3 or find_spec("scipy") is None:
        return None
    from scipy.sparse import coo_array, csgraph
    from scipy.sparse.linalg import ArpackError, eigsh

    place = {lp: i for i, lp in enumerate(part)}
    entries = [
        (place[lp], place[other], links) for lp in part for other, links in neighbours[lp].items() if other in place
    ]
    rows, columns, weights = (np.array(column) for column in zip(*entries, strict=True))
    laplacian = csgraph.laplacian(
        coo_array((weights.astype(np.float64), (rows, columns)), shape=(len(part), len(part)))
    )
    if len(part) <= _DENSE_MOST:
        vector = np.linalg.eigh(laplacian.toarray())[1][:, 1]
    else:
        start = np.cos(np.arange(len(part)))  # any fixed vector: the default is random
        try:
            vector = eigsh(laplacian.tocsc(), k=2, sigma=-0.01, v0=start)[1][:, 1]
        except ArpackError:
            return None
    rounded = np.round(vector * np.sign(vector[np.argmax(np.abs(vector))]), 9)  # an eigenvector has no sign of its own
    return [part[i] for i in np.lexsort((part, rounded)).tolist()]
