"""Default slot names."""

from __future__ import annotations

import pytest

from sclcm import _keys


@pytest.mark.parametrize(
    ("model", "base"),
    [("scgpt", "scgpt"), ("scgpt.brain", "scgpt_brain"), ("sclcm-mini", "sclcm_mini"), ("a.b-c.d", "a_b_c_d")],
)
def test_dots_and_hyphens_become_underscores(model, base):
    assert _keys.embed_keys(model) == _keys.EmbedKeys(obsm=f"X_{base}", uns=base)
    assert _keys.gene_embed_keys(model) == _keys.GeneEmbedKeys(varm=f"{base}_genes", uns=f"{base}_genes")
    assert _keys.annotate_keys(model) == _keys.AnnotateKeys(
        label=f"{base}_label",
        score=f"{base}_label_score",
        coarse=f"{base}_label_coarse",
        ontology=f"{base}_label_ontology_term_id",
        uns=f"{base}_label",
    )


def test_key_added_replaces_the_base_verbatim():
    assert _keys.embed_keys("scgpt", "my-key.1") == _keys.EmbedKeys(obsm="my-key.1", uns="my-key.1")
    assert _keys.gene_embed_keys("scgpt", "k") == _keys.GeneEmbedKeys(varm="k", uns="k")
    assert _keys.annotate_keys("scgpt", "k") == _keys.AnnotateKeys(
        label="k", score="k_score", coarse="k_coarse", ontology="k_ontology_term_id", uns="k"
    )


def test_translate_slots_name_the_modality():
    assert _keys.translate_keys("a.b", "protein") == _keys.TranslateKeys(obsm="a_b_protein", uns="a_b_protein")
    assert _keys.translate_keys("a.b", "protein", "k") == _keys.TranslateKeys(obsm="k", uns="k")


def test_umap_slots_follow_the_embedding():
    assert _keys.umap_keys("X_sclcm_mini") == _keys.UmapKeys(
        obsm="X_umap_sclcm_mini", uns="X_umap_sclcm_mini", neighbors="sclcm_mini_neighbors"
    )
    assert _keys.umap_keys("X_sclcm_mini", "k") == _keys.UmapKeys(obsm="k", uns="k", neighbors="k_neighbors")


@pytest.mark.parametrize("keys", [_keys.embed_keys, _keys.gene_embed_keys, _keys.annotate_keys, _keys.umap_keys])
def test_names_that_no_file_could_store_are_refused(keys):
    for name in ("a/b", "", "/", "a\0b"):
        with pytest.raises(ValueError, match=r"`key_added` is .*, which cannot be stored"):
            keys("scgpt", name)
    with pytest.raises(TypeError, match="`key_added` is 3; expected a str"):
        keys("scgpt", 3)
