"""What the project must show, read from the tracked records: each number beside its floors."""
import pytest

from croissant.frenchbench.suites import FRENCH
from croissant.provenance import metric

LEAST_ACCURACY, MOST_BITS = .70, 2.0


def test_french_agreement():
    "Mean accuracy over the three French sets; each set weighs the same."
    m = metric("minimal_pairs/mean_three")
    assert abs(m["value"] - sum(metric(f"minimal_pairs/{name}")["value"] for name in FRENCH) / len(FRENCH)) < 1e-5
    assert m["value"] >= LEAST_ACCURACY


@pytest.mark.parametrize("name", FRENCH)
@pytest.mark.parametrize("floor", ["chance", "trigram", "random_weights"])
def test_each_french_set_is_above_its_floors(name, floor):
    m = metric(f"minimal_pairs/{name}")
    assert m["value"] > m["floors"][floor]


@pytest.mark.parametrize("language", ["fr", "en"])
def test_validation_text_is_cheap(language):
    "Measured while training, on the validation split."
    m = metric(f"training/bpb_{language}")
    assert m["value"] < MOST_BITS and m["value"] < m["floors"]["random_weights"]


@pytest.mark.parametrize("language", ["fr", "en"])
def test_held_out_text_is_cheap(language):
    "Measured on the test split, beside a trigram that counted the same training stream and a network with random weights."
    m = metric(f"bits_per_byte/{language}")
    assert m["value"] < MOST_BITS and m["value"] < m["floors"]["random_weights"] and m["floors"]["trigram"] < m["floors"]["random_weights"]


@pytest.mark.parametrize("record", ["minimal_pairs", "bits_per_byte"])
def test_the_trigram_read_as_much_as_the_network(record):
    assert metric(f"{record}/trigram_tokens")["value"] == metric("training/tokens_seen")["value"]
