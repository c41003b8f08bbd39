"""scInterpreter, of which nothing is published: its tokens and its network against formulas written out plainly."""

from __future__ import annotations

import json
import math
import shutil

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy import sparse
from torch.nn import functional

from sclcm._settings import settings
from sclcm._sizes import ReleaseFacts, resolve_sizes
from sclcm.checkpoints.keymap import KeyMapError
from sclcm.encoding.batches import pad_sentences
from sclcm.engine.infer import to_tensors
from sclcm.models import _untrained, build, describe, load
from sclcm.models._build import build_lcm
from sclcm.models._pass import open_input
from sclcm.tl import embed, embed_genes
from sclcm.zoo._registry import get_spec

GENES = ["CD3E", "MS4A1", "NKG7", "LYZ", "PPBP", "HLA-DRA"]
VECTOR, BETWEEN, WIDTH, HIDDEN, N_BLOCKS, N_HEADS, N_KEYS, BASE = 7, 9, 16, 20, 2, 4, 2, 300.0
PAD, CLS = 0, 1
COUNTS = np.array([[0, 1, 8, 9, 16, 40], [3, 0, 0, 0, 7, 10], [2, 2, 3, 4, 5, 6], [0, 0, 0, 0, 0, 1]])
EXPECTED = [[7, 6, 5, 4, 3, CLS], [7, 6, 2, CLS], [7, 6, 5, 4, 2, 3, CLS], [7, CLS]]
SMALL = {"d_model": WIDTH, "n_blocks": 1, "n_heads": N_HEADS, "d_hidden": HIDDEN, "d_between": BETWEEN}
LLAMA = {
    "model_type": "llama",
    "hidden_act": "silu",
    "num_attention_heads": N_HEADS,
    "num_key_value_heads": N_KEYS,
    "rms_norm_eps": 1e-5,
    "rope_theta": BASE,
}


@pytest.fixture
def adata():
    """Genes in another order than the model's, and one more that it does not know."""
    order = [4, 2, 0, 5, 1, 3]
    data = anndata.AnnData(sparse.csr_matrix(np.hstack([COUNTS[:, order], [[5], [0], [9], [1]]]).astype(np.float32)))
    data.var_names = [*(GENES[i] for i in order), "FTL"]
    return data


@pytest.fixture
def vectors():
    rows = np.random.default_rng(0).normal(size=(len(GENES) + 1, VECTOR))
    return pd.DataFrame(rows, index=[*GENES[::-1], "UNUSED"])


@pytest.fixture(autouse=True)
def _few_genes(monkeypatch):
    monkeypatch.setattr(settings, "min_genes_matched", 3)


def llama_shapes(*, width=WIDTH, hidden=HIDDEN, n_blocks=N_BLOCKS, n_keys=WIDTH * N_KEYS // N_HEADS, n_words=5):
    """Names and shapes that a Llama has in its official files."""
    shapes = {"model.embed_tokens.weight": (n_words, width), "lm_head.weight": (n_words, width)}
    shapes["model.norm.weight"] = (width,)
    for i in range(n_blocks):
        layer = f"model.layers.{i}."
        shapes |= {f"{layer}{part}_layernorm.weight": (width,) for part in ("input", "post_attention")}
        shapes |= {f"{layer}self_attn.{part}_proj.weight": (width, width) for part in "qo"}
        shapes |= {f"{layer}self_attn.{part}_proj.weight": (n_keys, width) for part in "kv"}
        shapes |= {f"{layer}mlp.{part}_proj.weight": (hidden, width) for part in ("gate", "up")}
        shapes[f"{layer}mlp.down_proj.weight"] = (width, hidden)
    return shapes


OWN = {
    "gene_vectors.weight": (len(GENES) + 2, VECTOR),
    "special_tokens.weight": (2, WIDTH),
    "projection.0.weight": (BETWEEN, VECTOR),
    "projection.0.bias": (BETWEEN,),
    "projection.2.weight": (WIDTH, BETWEEN),
    "projection.2.bias": (WIDTH,),
}


def draw(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) * 0.5 for name, shape in shapes.items()}


def write(folder, state, config=None):
    folder.mkdir(exist_ok=True)
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(LLAMA if config is None else config))
    return folder


@pytest.fixture
def llama(tmp_path):
    return write(tmp_path / "llama", draw(llama_shapes()))


@pytest.fixture
def release(tmp_path):
    folder = write(tmp_path / "release", draw(llama_shapes() | OWN))
    tokens = ["<pad>", "<cls>", *GENES]
    (folder / "gene_tokens.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    return folder


@pytest.fixture
def model(release):
    return load(release, family="scinterpreter", device="cpu", dtype="float32")


# ---- written out in float64 ----


def rms(state, name, x):
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * state[f"{name}.weight"]


def by_place(x):
    """Turn each plane of two channels, half a head apart, by place times its speed; shape `(heads, tokens, size)`."""
    _, length, size = x.shape
    speeds = torch.tensor([BASE ** (-2 * i / size) for i in range(size // 2)], dtype=torch.float64)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * speeds
    planes = torch.complex(x[..., : size // 2], x[..., size // 2 :]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([planes.real, planes.imag], dim=-1)


def entrance(state, ids):
    vectors = state["gene_vectors.weight"][ids]
    middle = functional.gelu(vectors @ state["projection.0.weight"].T + state["projection.0.bias"])
    x = middle @ state["projection.2.weight"].T + state["projection.2.bias"]
    return torch.stack([state["special_tokens.weight"][i] if i < 2 else row for i, row in zip(ids, x, strict=True)])


def plain(state, ids):
    """The vectors of the tokens of one cell."""
    state = {name.removeprefix("model."): tensor.double() for name, tensor in state.items()}
    x, size = entrance(state, ids), WIDTH // N_HEADS
    later = torch.ones(len(ids), len(ids), dtype=torch.bool).triu(1)
    for i in range(N_BLOCKS):
        layer = f"layers.{i}."
        y = rms(state, f"{layer}input_layernorm", x)
        q, k, v = (
            (y @ state[f"{layer}self_attn.{part}_proj.weight"].T).unflatten(-1, (-1, size)).transpose(0, 1)
            for part in "qkv"
        )
        k, v = (part.repeat_interleave(N_HEADS // N_KEYS, dim=0) for part in (k, v))
        scores = by_place(q) @ by_place(k).transpose(-1, -2) / math.sqrt(size)
        mixed = scores.masked_fill(later, -math.inf).softmax(-1) @ v
        x = x + mixed.transpose(0, 1).flatten(1) @ state[f"{layer}self_attn.o_proj.weight"].T
        y = rms(state, f"{layer}post_attention_layernorm", x)
        gate, up = (y @ state[f"{layer}mlp.{part}_proj.weight"].T for part in ("gate", "up"))
        x = x + (functional.silu(gate) * up) @ state[f"{layer}mlp.down_proj.weight"].T
    return rms(state, "norm", x)


# ---- files ----


def batch_of(adata, model):
    data = open_input(adata, model)
    return pad_sentences(model.encode(next(data.chunks(model))), np.arange(adata.n_obs), pad=PAD)


def test_sentence_is_the_genes_by_expression_then_the_token_that_is_read(adata, model):
    batch = batch_of(adata, model)
    found = [row[mask].tolist() for row, mask in zip(batch.token_ids, batch.mask, strict=True)]
    assert found == EXPECTED
    assert model.encoding.max_tokens == 2049


@torch.inference_mode()
def test_network_is_the_one_of_the_names_in_the_file(adata, model):
    tokens = to_tensors(batch_of(adata, model), model.device)
    x_bld = model.lcm(tokens)
    for cell, ids in enumerate(EXPECTED):
        wanted = plain(draw(llama_shapes() | OWN), torch.tensor(ids))
        torch.testing.assert_close(x_bld[cell, : len(ids)].double(), wanted, rtol=1e-4, atol=1e-5)


def test_cells_are_what_the_last_token_reads_and_genes_are_projected(adata, model):
    state = draw(llama_shapes() | OWN)
    embed(adata, model)
    wanted = torch.stack([plain(state, torch.tensor(ids))[-1] for ids in EXPECTED]).numpy()
    assert adata.obsm["X_scinterpreter"] == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    embed_genes(adata, model)
    embed_genes(adata, model, how="fixed", key_added="fixed")
    ids = torch.tensor([GENES.index(gene) + 2 for gene in adata.var_names[:6]])
    projected = entrance({name: tensor.double() for name, tensor in state.items()}, ids)
    assert adata.varm["scinterpreter_genes"][:6] == pytest.approx(projected.numpy(), rel=1e-4, abs=1e-5)
    assert np.array_equal(adata.varm["fixed"][:6], state["gene_vectors.weight"][ids].numpy())
    assert np.isnan(adata.varm["scinterpreter_genes"][6]).all()


def test_cell_does_not_depend_on_its_neighbours_nor_on_the_batch(adata, model):
    embed(adata, model)
    for cells in ([2, 0, 3, 1], [3]):
        some = adata[cells].copy()
        embed(some, model, batch_size=2)
        assert some.obsm["X_scinterpreter"] == pytest.approx(adata.obsm["X_scinterpreter"][cells], rel=1e-4, abs=1e-6)
    scaled = adata.copy()
    scaled.X = scaled.X.log1p()
    embed(scaled, model)
    assert np.array_equal(scaled.obsm["X_scinterpreter"], adata.obsm["X_scinterpreter"])


def test_only_the_first_genes_by_expression_are_read(adata, release):
    model = load(release, family="scinterpreter", max_length=3, device="cpu", dtype="float32")
    embed(adata, model)
    wanted = plain(draw(llama_shapes() | OWN), torch.tensor([7, 6, CLS]))[-1].numpy()
    assert adata.obsm["X_scinterpreter"][:2] == pytest.approx(np.stack([wanted, wanted]), rel=1e-4, abs=1e-5)


def test_key_map_goes_both_ways(model):
    written = get_spec("scinterpreter").keys.backward(model.lcm.state_dict())
    state = {name.removeprefix("model."): tensor for name, tensor in draw(llama_shapes() | OWN).items()}
    assert set(state) - set(written) == {"embed_tokens.weight", "lm_head.weight"}
    assert all(tensor.equal(state[name]) for name, tensor in written.items())


def test_files_that_do_not_fit_are_refused(release, llama):
    shutil.copy(release / "gene_tokens.json", llama / "gene_tokens.json")
    with pytest.raises(ValueError, match="lacks the tensor"):  # a language model alone
        load(llama, family="scinterpreter")
    write(release, draw(llama_shapes() | OWN | {"model.layers.0.self_attn.q_proj.bias": (WIDTH,)}))
    with pytest.raises(KeyMapError, match=r"no rule names: 'layers\.0\.self_attn\.q_proj\.bias'"):
        load(release, family="scinterpreter")
    write(release, draw(llama_shapes() | OWN | {"model.layers.1.self_attn.v_proj.weight": (WIDTH, WIDTH)}))
    with pytest.raises(KeyMapError, match=r"are no heads of one attention"):
        load(release, family="scinterpreter")


# ---- built anew ----


def test_model_is_built_saved_and_loaded(adata, vectors, tmp_path):
    model = build("scinterpreter", GENES, vectors=vectors, **SMALL, device="cpu")
    assert model.vocabulary.specials == {"<pad>": PAD, "<cls>": CLS}
    assert np.array_equal(model.fixed_gene_vectors(), vectors.loc[GENES].to_numpy(np.float32))
    assert not model.lcm.embed.gene.weight[:2].any()
    embed(adata, model, key_added="one")
    assert adata.obsm["one"].shape == (4, WIDTH)
    assert np.isfinite(adata.obsm["one"]).all()
    model.save(tmp_path / "saved")
    again = load(tmp_path / "saved", device="cpu", dtype="float32")
    assert all(tensor.equal(again.lcm.state_dict()[name]) for name, tensor in model.lcm.state_dict().items())
    embed(adata, again, key_added="other")
    assert np.array_equal(adata.obsm["one"], adata.obsm["other"])
    embed_genes(adata, again, how="contextual", key_added="genes")
    assert np.isfinite(adata.varm["genes"][:6]).all()


def test_vectors_are_needed_one_for_each_gene(vectors):
    with pytest.raises(ValueError, match=r"'scinterpreter' knows genes by vectors, .* pass `vectors`"):
        build("scinterpreter", GENES, **SMALL)
    with pytest.raises(ValueError, match="`vectors` lacks 1 of 6 genes, such as 'LYZ'"):
        build("scinterpreter", GENES, vectors=vectors.drop(index="LYZ"), **SMALL)
    with pytest.raises(ValueError, match="`d_vector` is 3, but `vectors` has vectors of 7"):
        build("scinterpreter", GENES, vectors=vectors, **SMALL, d_vector=3)
    with pytest.raises(TypeError, match="'tgpt' knows genes by a table of its own"):
        build("tgpt", GENES, vectors=vectors)
    with pytest.raises(TypeError, match="`vectors` is a list; expected a data frame"):
        build("scinterpreter", GENES, vectors=[1.0], **SMALL)
    found = build("scinterpreter", GENES, vectors=dict(zip(vectors.index, vectors.to_numpy(), strict=True)), **SMALL)
    assert found.architecture.gene.d_vector == VECTOR


def test_blocks_come_from_a_folder_and_the_rest_is_drawn(adata, vectors, llama):
    given = {"vectors": vectors, "d_between": BETWEEN, "device": "cpu", "dtype": "float32"}
    model = build("scinterpreter", GENES, backbone=llama, **given)
    written = get_spec("scinterpreter").keys.backward(model.lcm.state_dict())
    state = draw(llama_shapes())
    theirs = {name for name in state if name not in {"model.embed_tokens.weight", "lm_head.weight"}}
    assert all(written[name.removeprefix("model.")].equal(state[name]) for name in theirs)
    embed(adata, model)
    wanted = [plain(state | written, torch.tensor(ids))[-1] for ids in EXPECTED]
    assert adata.obsm["X_scinterpreter"] == pytest.approx(torch.stack(wanted).numpy(), rel=1e-4, abs=1e-5)
    same = build("scinterpreter", GENES, backbone=llama, **given)
    other = build("scinterpreter", GENES, backbone=llama, random_state=1, **given)
    assert same.sha256 == model.sha256 != other.sha256


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_blocks_in_half_precision_and_in_several_files(vectors, tmp_path, stored):
    state = {name: tensor.to(stored) for name, tensor in draw(llama_shapes()).items()}
    folder = write(tmp_path / "whole", state)
    names = sorted(state)
    (tmp_path / "apart").mkdir()
    for number, part in enumerate((names[:5], names[5:]), start=1):
        save_file({name: state[name] for name in part}, tmp_path / f"apart/model-0000{number}-of-00002.safetensors")
    shutil.copy(folder / "config.json", tmp_path / "apart/config.json")
    found = [
        build("scinterpreter", GENES, vectors=vectors, backbone=place, d_between=BETWEEN, device="cpu", dtype="float32")
        for place in (folder, tmp_path / "apart")
    ]
    one, other = (model.lcm.state_dict() for model in found)
    assert all(tensor.dtype == torch.float32 and tensor.equal(other[name]) for name, tensor in one.items())
    half = build("scinterpreter", GENES, vectors=vectors, backbone=folder, d_between=BETWEEN, dtype="bfloat16")
    assert half.lcm.backbone.norm.weight.dtype == half.lcm.embed.gene.weight.dtype == torch.bfloat16
    (tmp_path / "apart/model-00001-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds 1 files like 'model-00002-of-00002\.safetensors'"):
        build("scinterpreter", GENES, vectors=vectors, backbone=tmp_path / "apart")


def test_blocks_of_another_kind_are_refused(vectors, llama, tmp_path):
    def built(**given):
        build("scinterpreter", GENES, vectors=vectors, backbone=llama, **given)

    with pytest.raises(TypeError, match=r"`d_model` is what the blocks in .* have; leave it out"):
        built(d_model=32)
    for other in (
        {"model_type": "mistral"},
        {"hidden_act": "gelu"},
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5}},
        {"attention_bias": True},
    ):
        write(llama, draw(llama_shapes()), LLAMA | other)
        with pytest.raises(ValueError, match=r"only models with .* are known of 'scinterpreter'"):
            built()
    state = draw(llama_shapes())
    write(llama, {name: tensor for name, tensor in state.items() if "layers.0.mlp.down" not in name})
    with pytest.raises(
        ValueError, match=r"(?s)does not fit the model that it describes.* \"backbone\.blocks\.0\.ff\.down"
    ):
        built()
    with pytest.raises(FileNotFoundError, match="which is no folder"):
        build("scinterpreter", GENES, vectors=vectors, backbone=tmp_path / "none")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_attention_heads": 3}, "3 heads do not divide a width of 16"),
        ({"num_attention_heads": 10**12}, "heads do not divide|but the checkpoint has"),
        ({"num_attention_heads": "4"}, "`n_heads` of the model's SoftmaxAttention is '4'"),
        ({"num_attention_heads": 0}, "A size must be a positive integer"),
        ({"rms_norm_eps": "small"}, "`eps` of the model's RMSNorm is 'small'"),
        ({"rope_theta": -10.0}, "The base of rotary positions is -10.0"),
        ({"rope_theta": [1]}, "`base` of the model's RotaryPositions"),
    ],
)
def test_configuration_that_makes_no_sense_is_refused(vectors, llama, changed, message):
    write(llama, draw(llama_shapes()), LLAMA | changed)
    with pytest.raises(ValueError, match=message):
        build("scinterpreter", GENES, vectors=vectors, backbone=llama, d_between=3)


def test_tensors_that_two_files_hold_are_refused(vectors, llama):
    for number in (1, 2):
        shutil.copy(llama / "model.safetensors", llama / f"model-0000{number}-of-00002.safetensors")
    with pytest.raises(ValueError, match="which another file beside it has as well"):
        build("scinterpreter", GENES, vectors=vectors, backbone=llama, d_between=3)


def test_speed_of_rotation_is_read_from_files_of_any_age():
    rule = get_spec("scinterpreter").architecture.backbone.attention.rotary
    for config, base in (
        ({}, 10_000),
        ({"rope_theta": 5e5}, 5e5),
        ({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, 5e5),
    ):
        assert resolve_sizes(rule, ReleaseFacts(config=config)).base == base


def test_sizes_are_those_of_llama_13b_where_none_is_given():
    shapes = llama_shapes(width=5120, hidden=13824, n_blocks=40, n_keys=5120, n_words=32000)
    spec = get_spec("scinterpreter")
    assert sum(math.prod(shape) for shape in shapes.values()) == 13_015_864_320
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    state |= {name: torch.empty(shape, device="meta") for name, shape in OWN.items()}
    state["special_tokens.weight"] = torch.empty(2, 5120, device="meta")
    state["projection.2.weight"], state["projection.2.bias"] = (
        torch.empty(*shape, device="meta") for shape in ((5120, BETWEEN), (5120,))
    )
    bare = spec.keys.bare(state)
    config = {**LLAMA, "num_attention_heads": 40}
    facts = ReleaseFacts(config=config, shapes={name: tuple(tensor.shape) for name, tensor in bare.items()})
    architecture = resolve_sizes(spec.architecture, facts)
    build_lcm(architecture, spec.keys.forward(bare))
    backbone, attention = architecture.backbone, architecture.backbone.attention
    found = (architecture.d_model, backbone.n_blocks, attention.n_heads, attention.heads_per_key)
    assert (*found, backbone.feed_forward.d_hidden) == tuple(
        spec.sizes[name] for name in ("d_model", "n_blocks", "n_heads", "heads_per_key", "d_hidden")
    )


def test_model_larger_than_the_machine_is_refused_before_it_is_drawn(vectors, llama, monkeypatch):
    monkeypatch.setattr(_untrained, "machine_memory", lambda: 16 * 10**9)
    with pytest.raises(MemoryError, match=r"has 12\.7 billion weights, 51 GB .* this machine has 16 GB"):
        build("scinterpreter", GENES, vectors=vectors)
    build("scinterpreter", GENES, vectors=vectors, backbone=llama)
    monkeypatch.setattr(_untrained, "machine_memory", lambda: None)
    build("scinterpreter", GENES, vectors=vectors, **SMALL)


def test_loading_by_name_says_that_there_are_no_weights():
    with pytest.raises(ValueError, match="No weights of 'scinterpreter' are published"):
        load("scinterpreter")
    assert describe("scinterpreter")["description"].startswith("no weights are published")


# ---- a language model as its own library saves it ----


@pytest.mark.parametrize("whole", [True, False])
def test_blocks_are_those_of_transformers(adata, vectors, tmp_path, whole):
    transformers = pytest.importorskip("transformers")
    sizes = transformers.LlamaConfig(
        vocab_size=5,
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=3,
        num_attention_heads=N_HEADS,
        num_key_value_heads=N_KEYS,
        rope_theta=BASE,
    )
    torch.manual_seed(0)
    kind = transformers.LlamaForCausalLM if whole else transformers.LlamaModel
    theirs = kind(sizes).eval()
    theirs.save_pretrained(tmp_path / "llama")
    model = build(
        "scinterpreter", GENES, vectors=vectors, backbone=tmp_path / "llama", device="cpu", dtype="float32", d_between=5
    )
    embed(adata, model)
    stack = theirs.model if whole else theirs
    with torch.inference_mode():
        for cell, ids in enumerate(EXPECTED):
            x_1ld = model.lcm.embed.genes(torch.tensor([ids]))
            wanted = stack(inputs_embeds=x_1ld).last_hidden_state[0, -1]
            assert adata.obsm["X_scinterpreter"][cell] == pytest.approx(wanted.numpy(), rel=1e-4, abs=1e-5)


def test_blocks_of_transformers_are_files_as_they_are_written_here(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = transformers.LlamaConfig(
        vocab_size=5,
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=N_BLOCKS,
        num_attention_heads=N_HEADS,
        num_key_value_heads=N_KEYS,
    )
    transformers.LlamaForCausalLM(sizes).save_pretrained(tmp_path)
    found = {name: tuple(tensor.shape) for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    assert found == llama_shapes()
