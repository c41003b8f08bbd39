"""Vocabularies that are a table of genes in the order of their ids."""

from __future__ import annotations

import dataclasses

import pytest

from sclcm.models._release import Release, read_vocabulary
from sclcm.zoo._vocabularies import GeneList

TABLE = "gene_name\tindex\nZYX\t0\nA1BG\t1\nCD4\t2\n"
SOURCE = GeneList(
    files=("*.tsv",),
    delimiter="\t",
    column="gene_name",
    number="index",
    ids="symbol",
    pad="<pad>",
    after=("<T>", "<S>", "<pad>"),
)


@pytest.fixture
def read(tmp_path):
    def of(text, source=SOURCE, name="genes.tsv"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return read_vocabulary(source, Release(tmp_path, (tmp_path,)))

    return of


def test_genes_keep_the_order_of_the_file_and_special_tokens_come_after(read):
    found = read(TABLE)
    assert found.features.tolist() == ["ZYX", "A1BG", "CD4"]
    assert found.token_ids.tolist() == [0, 1, 2]
    assert found.specials == {"<T>": 3, "<S>": 4, "<pad>": 5}


def test_special_tokens_may_come_before_and_columns_need_no_number(read):
    source = dataclasses.replace(
        SOURCE, files=("genes.csv",), delimiter=",", column="symbol", number=None, before=("<pad>",), after=()
    )
    found = read("symbol,chromosome\nZYX,7\nA1BG,19\n", source, name="genes.csv")
    assert found.token_ids.tolist() == [1, 2]
    assert found.specials == {"<pad>": 0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TABLE.replace("gene_name", "gene"), "'gene_name' of the vocabulary is none of the columns"),
        (TABLE.replace("A1BG\t1", "A1BG"), "'gene_name' of the vocabulary cannot be read in row 1"),
        (TABLE.replace("A1BG\t1", "A1BG\t2"), "'index' of the vocabulary numbers the gene 'A1BG' 2, in row 1"),
        (TABLE.replace("CD4", "ZYX"), "names a gene twice"),
        (TABLE.replace("CD4", "<T>"), "names a gene twice, or one like a special token"),
        (TABLE.replace("CD4", ""), "or none in some row"),
        ("gene_name\tindex\n", "holds no rows"),
    ],
)
def test_tables_that_cannot_be_right_are_refused(read, text, message):
    with pytest.raises(ValueError, match=message):
        read(text)
