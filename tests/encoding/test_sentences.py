"""From counts to cell sentences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.sparse import csr_matrix

from sclcm._sizes import Config
from sclcm.encoding.chunks import CellChunk
from sclcm.encoding.normalize import DivideByFactor, LogNormalize, LogNormalizeKnown
from sclcm.encoding.recount import CapTotal
from sclcm.encoding.select import ByRank, InOrder, WeightedSample
from sclcm.encoding.sentences import SPECIAL, Encoding, encode, special_ids
from sclcm.encoding.values import Bins, Normalized
from sclcm.genes.align import align_genes
from sclcm.genes.vocabulary import GeneVocabulary

GENES = [f"ENSG0000000000{i}" for i in range(1, 7)]


def make_vocabulary(*specials):
    tokens = {name: i for i, name in enumerate(specials)}
    # Token ids with gaps and offsets, so that no test confuses token ids with features.
    tokens |= {gene: len(specials) + 10 * i for i, gene in enumerate(GENES)}
    return GeneVocabulary.from_mapping(tokens, specials=specials, ids="ensembl")


def make_chunk(counts, *, start=0, obs=None):
    matrix = csr_matrix(np.asarray(counts, dtype=np.float32).reshape(-1, len(GENES)))
    totals = np.asarray(matrix.sum(1)).ravel().astype(np.float64)
    return CellChunk(start=start, counts=matrix, totals=totals, n_genes=np.diff(matrix.indptr), obs=obs or {})


def ranked(max_tokens=10, **given):
    return Encoding(normalize=(DivideByFactor(factors="median"),), select=ByRank(), max_tokens=max_tokens, **given)


ARRAYS = {"median": np.array([1.0, 2.0, 1.0, 4.0, 0.5, 1.0])}
FRAMED = make_vocabulary("<pad>", "<mask>", "<cls>", "<eos>")
BARE = make_vocabulary("<pad>", "<mask>")


def sentence(sentences, cell):
    return sentences.token_ids[sentences.indptr[cell] : sentences.indptr[cell + 1]].tolist()


def test_genes_come_in_descending_order_of_count_over_factor():
    encoded = encode(make_chunk([[3, 2, 0, 20, 1, 0]]), ranked(), vocabulary=BARE, arrays=ARRAYS)
    # values 3, 1, -, 5, 2, - : features 3, 0, 4, 1
    assert encoded.features.tolist() == [3, 0, 4, 1]
    assert encoded.token_ids.tolist() == [2 + 30, 2 + 0, 2 + 40, 2 + 10]
    assert encoded.token_ids.dtype == encoded.features.dtype == np.int32
    assert encoded.values == {}


def test_equal_values_come_in_vocabulary_order():
    encoded = encode(make_chunk([[2, 4, 2, 8, 1, 2]]), ranked(), vocabulary=BARE, arrays=ARRAYS)
    assert encoded.features.tolist() == [0, 1, 2, 3, 4, 5]


@settings(deadline=None, max_examples=50)
@given(st.permutations(range(6)), npst.arrays(np.float32, 6, elements=st.sampled_from([0, 1, 2, 4])))
def test_order_of_var_does_not_matter(order, counts):
    names = [GENES[i] for i in order]
    aligned = csr_matrix(counts[list(order)][None]) @ align_genes(names, FRAMED, species="human").matrix()
    aligned.sort_indices()
    assert np.array_equal(aligned.toarray()[0], counts)
    encoding = ranked(prefix=("<cls>",))
    ours = encode(make_chunk(aligned.toarray()), encoding, vocabulary=FRAMED, arrays=ARRAYS)
    wanted = encode(make_chunk(counts), encoding, vocabulary=FRAMED, arrays=ARRAYS)
    assert ours.token_ids.tolist() == wanted.token_ids.tolist()


def test_sentence_is_cut_to_its_longest_with_special_tokens_counted():
    encoding = ranked(4, prefix=("<cls>",), suffix=("<eos>",))
    encoded = encode(make_chunk([[6, 10, 4, 12, 1, 1]]), encoding, vocabulary=FRAMED, arrays=ARRAYS)
    assert encoded.features.tolist() == [SPECIAL, 0, 1, SPECIAL]
    assert encoded.token_ids.tolist() == [2, 4 + 0, 4 + 10, 3]


def test_special_tokens_that_the_vocabulary_lacks_are_left_out():
    encoding = ranked(4, prefix=("<cls>",), suffix=("<eos>",))
    encoded = encode(make_chunk([[6, 10, 4, 12, 1, 1]]), encoding, vocabulary=BARE, arrays=ARRAYS)
    assert encoded.features.tolist() == [0, 1, 2, 3]
    assert special_ids(("<cls>", "<mask>"), BARE).tolist() == [1]


def test_limit_overrides_the_longest_sentence():
    chunk, encoding = make_chunk([[6, 10, 4, 12, 1, 1]]), ranked(4, prefix=("<cls>",))
    assert encode(chunk, encoding, vocabulary=FRAMED, arrays=ARRAYS, limit=6).lengths.tolist() == [7]
    assert encode(chunk, encoding, vocabulary=FRAMED, arrays=ARRAYS, limit=0).token_ids.tolist() == [2]


def test_sentence_too_short_for_its_special_tokens_is_refused():
    encoding = ranked(1, prefix=("<cls>",), suffix=("<eos>",))
    with pytest.raises(ValueError, match=r"`max_tokens` is 1.*2 special tokens"):
        encode(make_chunk([[1, 1, 0, 0, 0, 0]]), encoding, vocabulary=FRAMED, arrays=ARRAYS)


def test_cells_of_no_gene_and_of_one_gene_keep_their_places():
    counts = [[0] * 6, [0, 0, 7, 0, 0, 0], [0] * 6, [1, 0, 0, 0, 3, 0], [0] * 6]
    encoded = encode(
        make_chunk(counts, start=20), ranked(prefix=("<cls>",), suffix=("<eos>",)), vocabulary=FRAMED, arrays=ARRAYS
    )
    assert [sentence(encoded, cell) for cell in range(5)] == [[2, 3], [2, 24, 3], [2, 3], [2, 44, 4, 3], [2, 3]]
    assert encoded.rows.tolist() == [20, 21, 22, 23, 24]
    bare = encode(make_chunk(counts), ranked(), vocabulary=BARE, arrays=ARRAYS)
    assert bare.lengths.tolist() == [0, 1, 0, 2, 0]


@pytest.mark.parametrize("vocabulary", [BARE, FRAMED])
def test_chunk_without_cells_has_no_sentences(vocabulary):
    encoding = ranked(prefix=("<cls>",), suffix=("<eos>",), value=Normalized())
    encoded = encode(make_chunk(np.zeros((0, 6))), encoding, vocabulary=vocabulary, arrays=ARRAYS)
    assert (encoded.n_cells, encoded.token_ids.tolist(), encoded.indptr.tolist()) == (0, [], [0])


def test_values_travel_with_their_tokens_and_are_zero_at_special_ones():
    encoding = Encoding(
        normalize=(LogNormalize(target_sum=10.0),), select=ByRank(), value=Normalized(), prefix=("<cls>",), max_tokens=3
    )
    encoded = encode(make_chunk([[1, 0, 6, 0, 3, 0]]), encoding, vocabulary=FRAMED, arrays={})
    assert encoded.features.tolist() == [SPECIAL, 2, 4]
    assert encoded.values["value"] == pytest.approx([0, np.log(7), np.log(4)], rel=1e-6)
    assert encoded.values["value"].dtype == np.float32


def test_total_of_the_cell_is_a_scalar_of_its_sentence():
    chunk = make_chunk([[1, 0, 6, 0, 3, 0]], obs={"n_counts": np.array([99])})
    assert encode(chunk, ranked(), vocabulary=BARE, arrays=ARRAYS).scalars["total"].tolist() == [10]
    keyed = encode(chunk, ranked(total_key="n_counts"), vocabulary=BARE, arrays=ARRAYS)
    assert keyed.scalars["total"].tolist() == [99]


def test_encoding_names_every_column_of_obs_that_its_steps_read():
    assert ranked().obs_columns == ()
    assert ranked(total_key="n_counts").obs_columns == ("n_counts",)
    steps = (LogNormalize(total_key="total"), LogNormalize())
    assert Encoding(normalize=steps, select=ByRank(), max_tokens=3).obs_columns == ("total",)
    assert Encoding(normalize=steps, select=ByRank(), max_tokens=3, total_key="total").obs_columns == ("total",)


def test_longest_sentence_that_was_never_read_from_a_release_is_refused():
    with pytest.raises(ValueError, match="positive integer"):
        encode(make_chunk([[1] * 6]), ranked(Config("max_len")), vocabulary=BARE, arrays=ARRAYS)


@settings(deadline=None, max_examples=50)
@given(npst.arrays(np.float32, (5, 6), elements=st.sampled_from([0, 0, 1, 2, 7])), st.permutations(range(5)))
def test_order_of_cells_does_not_matter(counts, order):
    encoding = ranked(4, prefix=("<cls>",), suffix=("<eos>",), value=Normalized())
    plain = encode(make_chunk(counts), encoding, vocabulary=FRAMED, arrays=ARRAYS)
    shuffled = encode(make_chunk(counts[list(order)]), encoding, vocabulary=FRAMED, arrays=ARRAYS)
    assert [sentence(shuffled, i) for i in range(5)] == [sentence(plain, cell) for cell in order]


def binned(max_tokens, **given):
    return Encoding(select=InOrder(), value=Bins(n_bins=4), prefix=("<cls>",), max_tokens=max_tokens, **given)


def test_special_tokens_have_the_value_that_the_encoding_gives_them():
    encoding = binned(9, special_value=-2.0, suffix=("<eos>",))
    encoded = encode(make_chunk([[1, 0, 6, 0, 3, 0]]), encoding, vocabulary=FRAMED, arrays={})
    assert encoded.features.tolist() == [SPECIAL, 0, 2, 4, SPECIAL]
    assert encoded.values["value"].tolist() == [-2, 1, 3, 2, -2]


def test_sentence_without_a_longest_is_not_cut():
    counts = [[1, 2, 3, 4, 5, 6], [0] * 6, [1, 1, 0, 0, 0, 0]]
    assert encode(make_chunk(counts), binned(None), vocabulary=FRAMED, arrays={}).lengths.tolist() == [7, 1, 3]
    assert encode(make_chunk(counts), binned(4), vocabulary=FRAMED, arrays={}).lengths.tolist() == [4, 1, 3]


def test_bins_are_made_of_all_genes_of_a_cell_before_some_are_sampled():
    counts = [[1, 2, 3, 4, 5, 6]]
    whole = encode(make_chunk(counts), binned(None), vocabulary=FRAMED, arrays={})
    bins = dict(zip(whole.token_ids.tolist(), whole.values["value"].tolist(), strict=True))
    part = encode(make_chunk(counts), binned(4), vocabulary=FRAMED, arrays={})
    assert len(part.token_ids) == 4
    assert part.values["value"].tolist() == [bins[token] for token in part.token_ids.tolist()]


@settings(deadline=None, max_examples=30)
@given(npst.arrays(np.float32, (4, 6), elements=st.sampled_from([0, 1, 1, 2])), st.integers(0, 3))
def test_random_steps_follow_the_seed_and_not_the_place_of_a_cell(counts, random_state):
    given = {"vocabulary": FRAMED, "arrays": {}, "random_state": random_state}
    together = encode(make_chunk(counts), binned(4), **given)
    for cell in range(4):
        alone = encode(make_chunk(counts[cell], start=cell), binned(4), **given)
        span = slice(together.indptr[cell], together.indptr[cell + 1])
        assert alone.token_ids.tolist() == together.token_ids[span].tolist()
        assert alone.values["value"].tolist() == together.values["value"][span].tolist()


def test_other_seed_takes_other_genes_and_other_bins():
    chunk = make_chunk([[2] * 6])
    found = {
        (tuple(encoded.token_ids), tuple(encoded.values["value"]))
        for seed in range(20)
        for encoded in [encode(chunk, binned(4), vocabulary=FRAMED, arrays={}, random_state=seed)]
    }
    assert len({tokens for tokens, _ in found}) > 5
    assert len({values for _, values in found}) > 5


def test_given_numbers_replace_the_draws_of_an_encoding():
    draws = {"bins": np.array([0.0, 0.4, 0.9, 0.9]), "sample": np.array([0.5, 0.1, 0.3, 0.2])}
    encoded = encode(
        make_chunk([[2, 0, 2, 2, 0, 2]]), binned(4), vocabulary=FRAMED, arrays={}, draws=draws
    )  # edges 2, 2, 2: bins 1 to 3
    assert encoded.features.tolist() == [SPECIAL, 2, 3, 5]
    assert encoded.values["value"].tolist() == [0, 2, 1, 1]


def test_counts_are_made_anew_before_all_else():
    """Totals over known genes, values and tokens follow from the counts that are left."""
    plain = {"normalize": (LogNormalizeKnown(target_sum=1e4),), "select": WeightedSample(), "value": Normalized()}
    chunk = make_chunk([[400, 1, 200, 0, 0, 0], [3, 1, 0, 0, 0, 0]])
    encoded = encode(chunk, Encoding(**plain, recount=CapTotal(largest=60.1), max_tokens=5), vocabulary=BARE, arrays={})
    assert encoded.features.tolist() == [0, 2, 0, 1]
    wanted = np.log1p(1e4 * np.array([40 / 60, 20 / 60, 3 / 4, 1 / 4]))
    np.testing.assert_allclose(encoded.values["value"], wanted, rtol=1e-6)
