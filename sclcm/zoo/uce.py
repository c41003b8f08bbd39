"""UCE: a Transformer over sampled genes as protein vectors, in genomic order (doi:10.1101/2023.11.28.568918)."""

from __future__ import annotations

from sclcm._sizes import Count, Given, Shape
from sclcm.checkpoints.keymap import KeyMap, Rename, Squeeze, StripPrefix
from sclcm.encoding.groups import SampledGroups
from sclcm.encoding.normalize import LogCounts
from sclcm.encoding.sentences import Encoding
from sclcm.nn.configs import BackboneConfig, FeedForward, LayerNorm, LCMConfig, SoftmaxAttention
from sclcm.nn.fixed_configs import FixedPositions, ProjectedVectors
from sclcm.nn.readouts import CellVectorHead, FirstToken, LayeredHead
from sclcm.zoo._card import ModelCard
from sclcm.zoo._spec import Checkpoint, ModelSpec, Recipe
from sclcm.zoo._species import SpeciesGenes, SpeciesTables

NORM = LayerNorm(eps=1e-5)
TABLE = "pe_embedding.weight"
BLOCK = "transformer_encoder.layers.{}."
OURS = "backbone.blocks.{}."
GENES = (
    "Homo_sapiens.GRCh38.gene_symbol_to_embedding_ESM2.pt",
    "Mus_musculus.GRCm39.gene_symbol_to_embedding_ESM2.pt",
    "Xenopus_tropicalis.Xenopus_tropicalis_v9.1.gene_symbol_to_embedding_ESM2.pt",
    "Danio_rerio.GRCz11.gene_symbol_to_embedding_ESM2.pt",
    "Microcebus_murinus.Mmur_3.0.gene_symbol_to_embedding_ESM2.pt",
    "Sus_scrofa.Sscrofa11.1.gene_symbol_to_embedding_ESM2.pt",
    "Macaca_fascicularis.Macaca_fascicularis_6.0.gene_symbol_to_embedding_ESM2.pt",
    "Macaca_mulatta.Mmul_10.gene_symbol_to_embedding_ESM2.pt",
)
SPECIES = ("human", "mouse", "frog", "zebrafish", "mouse_lemur", "pig", "macaca_fascicularis", "macaca_mulatta")
WHERE = (
    "figshare.com, by file id (figshare.com/ndownloader/files/<id>): species_chrom.csv 42706558, species_offsets.pkl "
    "42706555, protein_embeddings.tar.gz 42715213 (unpack it; of its files those of your species suffice), and "
)
LICENSE = "MIT (code; the files state no licence of their own)"

SPEC = ModelSpec(
    name="uce",
    title="UCE: a Transformer over genes as protein vectors, sampled by expression, in genomic order",
    reference="Rosen et al., bioRxiv 2023",
    card=ModelCard(
        gene_encoding="protein vectors (ESM2, 5,120 wide), fixed, with a learned projection",
        value_encoding="none: 1,024 genes drawn with replacement, by log1p of counts",
        extra_tokens="cls; one before each chromosome, one after",
        backbone="Transformer encoder: post-norm, softmax attention, sinusoidal positions; tokens in genomic order",
        objective="whether a gene is expressed, from the cell's vector and the gene's protein",
        corpus="36 million cells of eight species, CELLxGENE and others",
        tasks=("cell embedding across species", "label transfer", "integration"),
        input="raw counts, gene symbols of eight species; more species by protein vectors",
    ),
    vocabulary=SpeciesTables(
        files=("species_chrom.csv", "model_files/species_chrom.csv"),
        offsets=("species_offsets.pkl", "model_files/species_offsets.pkl"),
        rows=("all_tokens.torch", "model_files/all_tokens.torch"),
        folders=("", "protein_embeddings/", "model_files/protein_embeddings/", "model_files/"),
        genes=(
            SpeciesGenes(species="human", file=GENES[0]),
            SpeciesGenes(species="mouse", file=GENES[1]),
            SpeciesGenes(species="frog", file=GENES[2]),
            SpeciesGenes(species="zebrafish", file=GENES[3]),
            SpeciesGenes(species="mouse_lemur", file=GENES[4]),
            SpeciesGenes(species="pig", file=GENES[5]),
            SpeciesGenes(species="macaca_fascicularis", file=GENES[6]),
            SpeciesGenes(species="macaca_mulatta", file=GENES[7]),
        ),
        more_genes=("new_species_protein_embeddings.csv", "model_files/new_species_protein_embeddings.csv"),
        table=TABLE,
        specials=("<pad>", "<chrom_start>", "<chrom_end>", "<cls>"),
        pad="<pad>",
        group="chromosome",
        place="start",
        species=SPECIES,
    ),
    # Upstream declares a token before each chromosome and a common one, of which it emits only the former.
    encoding=Encoding(
        normalize=(LogCounts(),),
        select=SampledGroups(
            n_draws=Given("sample_size", default=1024), group="chromosome", place="start", close="<chrom_end>"
        ),
        prefix=("<cls>",),
        max_tokens=Given("pad_length", default=1536),
    ),
    architecture=LCMConfig(
        d_model=Shape("encoder.0.weight"),
        gene=ProjectedVectors(n_tokens=Shape(TABLE), d_vector=Shape(TABLE, 1), norm=NORM),
        position=FixedPositions(n_positions=Shape("pos_encoder.pe")),
        backbone=BackboneConfig(
            n_blocks=Count(BLOCK + "linear1.weight"),
            attention=SoftmaxAttention(n_heads=Given("nhead", default=20)),
            feed_forward=FeedForward(d_hidden=Shape("transformer_encoder.layers.0.linear1.weight"), activation="relu"),
            norm="post",
            layer_norm=NORM,
            dropout=0.05,
        ),
        heads={
            "cell": LayeredHead(
                d_in=Shape("decoder.0.0.weight", 1),
                d_hidden=(Shape("decoder.0.0.weight"), Shape("decoder.1.0.weight"), Shape("decoder.2.0.weight")),
                d_out=Shape("decoder.3.weight"),
                layer_norm=NORM,
            ),
            "expressed": CellVectorHead(
                d_vector=Shape("gene_embedding_layer.0.weight", 1),
                d_gene=Shape("gene_embedding_layer.0.weight"),
                layers=LayeredHead(
                    d_in=Shape("binary_decoder.0.0.weight", 1),
                    d_hidden=(
                        Shape("binary_decoder.0.0.weight"),
                        Shape("binary_decoder.1.0.weight"),
                        Shape("binary_decoder.2.0.weight"),
                    ),
                    d_out=Shape("binary_decoder.3.weight"),
                    layer_norm=NORM,
                ),
                layer_norm=NORM,
            ),
        },
    ),
    keys=KeyMap(
        StripPrefix("module."),
        Rename(TABLE, "embed.gene.weight"),
        Rename("encoder.0.weight", "embed.gene_norm.project.linear.weight"),
        Rename("encoder.0.bias", "embed.gene_norm.project.linear.bias"),
        Rename("encoder.2.weight", "embed.gene_norm.project.norm.weight"),
        Rename("encoder.2.bias", "embed.gene_norm.project.norm.bias"),
        Squeeze("pos_encoder.pe", "embed.position.weight", axis=1),
        Rename(BLOCK + "self_attn.in_proj_weight", OURS + "attn.qkv.weight"),
        Rename(BLOCK + "self_attn.in_proj_bias", OURS + "attn.qkv.bias"),
        Rename(BLOCK + "self_attn.out_proj.weight", OURS + "attn.out.weight"),
        Rename(BLOCK + "self_attn.out_proj.bias", OURS + "attn.out.bias"),
        Rename(BLOCK + "linear1.weight", OURS + "ff.up.weight"),
        Rename(BLOCK + "linear1.bias", OURS + "ff.up.bias"),
        Rename(BLOCK + "linear2.weight", OURS + "ff.down.weight"),
        Rename(BLOCK + "linear2.bias", OURS + "ff.down.bias"),
        Rename(BLOCK + "norm1.weight", OURS + "norm1.weight"),
        Rename(BLOCK + "norm1.bias", OURS + "norm1.bias"),
        Rename(BLOCK + "norm2.weight", OURS + "norm2.weight"),
        Rename(BLOCK + "norm2.bias", OURS + "norm2.bias"),
        # Blocks of linear layer and norm; upstream numbers blocks, here layers are numbered through.
        Rename("decoder.0.0.weight", "heads.cell.layers.0.weight"),
        Rename("decoder.0.0.bias", "heads.cell.layers.0.bias"),
        Rename("decoder.0.1.weight", "heads.cell.layers.1.weight"),
        Rename("decoder.0.1.bias", "heads.cell.layers.1.bias"),
        Rename("decoder.1.0.weight", "heads.cell.layers.3.weight"),
        Rename("decoder.1.0.bias", "heads.cell.layers.3.bias"),
        Rename("decoder.1.1.weight", "heads.cell.layers.4.weight"),
        Rename("decoder.1.1.bias", "heads.cell.layers.4.bias"),
        Rename("decoder.2.0.weight", "heads.cell.layers.6.weight"),
        Rename("decoder.2.0.bias", "heads.cell.layers.6.bias"),
        Rename("decoder.2.1.weight", "heads.cell.layers.7.weight"),
        Rename("decoder.2.1.bias", "heads.cell.layers.7.bias"),
        Rename("decoder.3.weight", "heads.cell.out.weight"),
        Rename("decoder.3.bias", "heads.cell.out.bias"),
        Rename("gene_embedding_layer.0.weight", "heads.expressed.gene.linear.weight"),
        Rename("gene_embedding_layer.0.bias", "heads.expressed.gene.linear.bias"),
        Rename("gene_embedding_layer.2.weight", "heads.expressed.gene.norm.weight"),
        Rename("gene_embedding_layer.2.bias", "heads.expressed.gene.norm.bias"),
        Rename("binary_decoder.0.0.weight", "heads.expressed.pair.layers.0.weight"),
        Rename("binary_decoder.0.0.bias", "heads.expressed.pair.layers.0.bias"),
        Rename("binary_decoder.0.1.weight", "heads.expressed.pair.layers.1.weight"),
        Rename("binary_decoder.0.1.bias", "heads.expressed.pair.layers.1.bias"),
        Rename("binary_decoder.1.0.weight", "heads.expressed.pair.layers.3.weight"),
        Rename("binary_decoder.1.0.bias", "heads.expressed.pair.layers.3.bias"),
        Rename("binary_decoder.1.1.weight", "heads.expressed.pair.layers.4.weight"),
        Rename("binary_decoder.1.1.bias", "heads.expressed.pair.layers.4.bias"),
        Rename("binary_decoder.2.0.weight", "heads.expressed.pair.layers.6.weight"),
        Rename("binary_decoder.2.0.bias", "heads.expressed.pair.layers.6.bias"),
        Rename("binary_decoder.2.1.weight", "heads.expressed.pair.layers.7.weight"),
        Rename("binary_decoder.2.1.bias", "heads.expressed.pair.layers.7.bias"),
        Rename("binary_decoder.3.weight", "heads.expressed.pair.out.weight"),
        Rename("binary_decoder.3.bias", "heads.expressed.pair.out.bias"),
    ),
    recipes={"embed": Recipe(pooling=FirstToken(), head="cell", l2_normalize=True)},
    # Both sizes may lie in one folder, as upstream keeps them: the smaller is taken unless the other is named.
    weights=(
        "4layer_model.torch",
        "model_files/4layer_model.torch",
        "33l_8ep_1024t_1280.torch",
        "model_files/33l_8ep_1024t_1280.torch",
    ),
    config=None,
    checkpoints={
        "4-layer": Checkpoint(
            description="4 blocks of width 1,280, 36 million cells of eight species; upstream's default",
            license=LICENSE,
            source=WHERE + "4layer_model.torch 42706576",
            files=("4layer_model.torch", "species_chrom.csv", "species_offsets.pkl", GENES[0]),
            n_parameters=104_100_097,
        ),
        "33-layer": Checkpoint(
            description="33 blocks of width 1,280, 36 million cells of eight species; the model of the publication",
            license=LICENSE,
            source=WHERE + "33l_8ep_1024t_1280.torch 43423236",
            files=("33l_8ep_1024t_1280.torch", "species_chrom.csv", "species_offsets.pkl", GENES[0]),
            n_parameters=674_745_857,
        ),
    },
)
