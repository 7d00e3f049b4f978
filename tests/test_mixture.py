"""Mixtures: the paper's arithmetic, and refusals."""
import pytest

from croissant.mixture import epochs, mixtures, paper_shares, weights
from croissant.params import BadInput
from croissant.provenance import load_table


def test_table_1_holds_together():
    rows = load_table("reports/paper/mix.csv")
    total = {r["quantity"]: r["value"] for r in load_table("reports/paper/mix_total.csv")}
    for key in ("gb", "documents_m", "tokens_b", "tokens_seen_b"): assert sum(r[key] for r in rows) == pytest.approx(total[key], abs=.011)
    for r in rows: assert 1000 * r["tokens_b"] / r["documents_m"] == pytest.approx(r["tokens_per_document"], rel=.002)
    assert sum(r["epochs"] for r in rows) == pytest.approx(total["sampling_ratio"])          # the printed "ratio" is a sum
    assert total["tokens_seen_b"] / total["tokens_b"] == pytest.approx(2.63, abs=.005)


def test_shares():
    assert {p: round(100 * s, 1) for p, s in paper_shares().items()} == {"fr": 41.5, "en": 41.5, "code": 9.7, "parallel": 7.3}


def test_every_mixture_sums_to_one_and_keeps_its_share_of_code():
    for name in mixtures(): assert sum(weights(name).values()) == pytest.approx(1) and min(weights(name).values()) > 0
    for name in ("equal", "frplus", "enplus", "fronly", "enonly"): assert weights(name)["code"] == .2 and "parallel" not in weights(name)


def test_epochs():
    assert epochs({"fr": 10, "en": 40}, {"fr": 3, "en": 1}, 80) == {"fr": 6, "en": .5}
    assert epochs({"fr": 10, "en": 0}, {"fr": 1, "en": 0}, 20) == {"fr": 2}


@pytest.mark.parametrize("tokens, w, message", [({"fr": 1}, {"fr": 1, "en": 1}, "'en'"), ({"fr": 1}, {"fr": -1}, "negative"), ({"fr": 1}, {"fr": 0}, "all zero"), ({"fr": 1}, {}, "all zero")])
def test_epochs_refuse(tokens, w, message):
    with pytest.raises(BadInput, match=message): epochs(tokens, w, 10)


def test_unknown_mixture():
    with pytest.raises(BadInput, match="known: paper"): weights("half")
