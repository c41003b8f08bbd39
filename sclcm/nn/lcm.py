"""The large cellular model: encoders, backbone and heads, assembled from one configuration."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from sclcm._sizes import as_int
from sclcm.nn import configs
from sclcm.nn.backbone import Backbone, Block
from sclcm.nn.cell_embedder import CellEmbedder
from sclcm.nn.decoder import Decoder
from sclcm.nn.embedders import Embedder, require_condition
from sclcm.nn.heads import HeadInput, build_heads, read
from sclcm.nn.mixture_latent import MixtureReadout
from sclcm.nn.set_configs import BagOfGenes

if TYPE_CHECKING:
    from sclcm.nn.cache import Cache
    from sclcm.nn.tokens import CellTensors, TokenTensors


class LCM(nn.Module):
    """Any of the zoo's models, as its configuration says."""

    def __init__(self, config: configs.LCMConfig) -> None:
        super().__init__()
        width = as_int(config.d_model)
        self.config = config
        self.embed = build_embedder(config)
        self.backbone = Backbone(config.backbone, width)
        self.heads = build_heads(config.heads, width, self.embed.gene)
        self.decoder = None if config.decoder is None else Decoder(config.decoder, width, self.embed.gene)
        self.apply(_initialize)

    @property
    def sentence_embedder(self) -> Embedder:
        """The embedder, for what only sentences of genes are given to."""
        if not isinstance(self.embed, Embedder):
            msg = "The tokens of this model are cells, and it reads them in sets."
            raise TypeError(msg)
        return self.embed

    @property
    def cell_embedder(self) -> CellEmbedder:
        """The embedder, of models whose tokens are cells."""
        if not isinstance(self.embed, CellEmbedder):
            msg = "The tokens of this model are genes, so it reads cells one by one as sentences of them."
            raise TypeError(msg)
        return self.embed

    @property
    def n_blocks(self) -> int:
        """Depth of the backbone."""
        return len(self.backbone.blocks)

    def forward(self, tokens: TokenTensors, n_blocks: int | None = None) -> Tensor:
        """Return token vectors after so many blocks (all of them with `None`), shape `(cells, tokens, width)`."""
        hidden_bl = self.sentence_embedder.hidden(tokens) if self.backbone.n_blind else None
        return self.backbone(self.sentence_embedder(tokens), tokens.mask_bl, n_blocks, hidden_bl)

    def cells(self, cells: CellTensors) -> Tensor:
        """Return the vectors that enter the first block, of cells that are tokens, shape `(cells, width)`."""
        return self.cell_embedder(cells)

    def read_cells(self, head: str, x_nd: Tensor, uniform_nk: Tensor | None = None) -> Tensor:
        """Apply a head to vectors of cells that are tokens, shape `(cells, width)`.

        Parameters
        ----------
        head
            Its name.
        x_nd
            The vectors.
        uniform_nk
            Uniform numbers for a head that draws, shape `(cells, draws)`.
        """
        found = self.heads[head]
        return found(x_nd, uniform_nk) if isinstance(found, MixtureReadout) else found(x_nd)

    def decode(self, x_bld: Tensor, tokens: TokenTensors) -> Tensor:
        """Return what the decoder makes of token vectors, shape `(cells, places, width of the decoder)`."""
        if self.decoder is None:
            msg = "This model has no decoder."
            raise ValueError(msg)
        return self.decoder(x_bld, tokens, self.embed)

    def read_decoder(self, head: str, x_bld: Tensor, tokens: TokenTensors) -> Tensor:
        """Return the number that a head of the decoder gives at each of its places, shape `(cells, places)`."""
        y_bgd = self.decode(x_bld, tokens)
        return cast("Decoder", self.decoder).heads[head](y_bgd).squeeze(-1)

    def prefill(self, tokens: TokenTensors, *, n_last: int, n_more: int) -> tuple[Tensor, Cache]:
        """Read sentences that are to be continued token by token; the attention must be causal.

        Parameters
        ----------
        tokens
            The sentences, padded at the right.
        n_last
            How many tokens at the end of each are asked for; of a shorter sentence the first stands in.
        n_more
            Tokens to make room for.

        Returns
        -------
        Vectors of the last tokens, in order, shape `(cells, n_last, width)`, and the cache.
        """
        stack = self.config.backbone
        attention = stack.attention if isinstance(stack, configs.BackboneConfig) else None
        if not isinstance(attention, configs.SoftmaxAttention) or not attention.causal:
            msg = "This model's attention is not causal, so its sentences cannot be continued token by token."
            raise ValueError(msg)
        length_b = tokens.lengths()
        before = torch.arange(n_last, 0, -1, device=length_b.device)
        place_bm = (length_b.unsqueeze(1) - before).clamp(min=0)
        return self.backbone.prefill(self.sentence_embedder(tokens), length_b, place_bm, n_more)

    def step(self, tokens: TokenTensors, cache: Cache) -> tuple[Tensor, Cache]:
        """Read one more token of each cell; return its vector, shape `(cells, width)`, and the longer cache.

        The given cache is used up.
        """
        placed = dataclasses.replace(tokens, place_bl=cache.length_b.unsqueeze(1))
        x_b1d, cache = self.backbone.step(self.sentence_embedder(placed), cache)
        return x_b1d[:, 0], cache

    def with_targets(
        self, tokens: TokenTensors, target_ids_bm: Tensor, cell_bd: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the vectors of visible tokens and of tokens whose value is to be generated.

        Parameters
        ----------
        tokens
            The visible tokens.
        target_ids_bm
            Token ids of the others, shape `(cells, targets)`; each sees the visible tokens and itself, so padding
            among them harms none.
        cell_bd
            Cell vectors that take the place of the first visible token, shape `(cells, width)`, or `None`.

        Returns
        -------
        Shapes `(cells, tokens, width)` and `(cells, targets, width)`.
        """
        x_bld = _with_first(self.sentence_embedder(tokens), cell_bd)
        return self.backbone.with_targets(
            x_bld, self.sentence_embedder.targets(target_ids_bm, tokens.condition_b), tokens.mask_bl
        )

    def from_cell(self, tokens: TokenTensors, cell_bd: Tensor) -> Tensor:
        """Return token vectors when only the genes and the cell's vector are known, shape `(cells, tokens, width)`.

        The cell's vector takes the place of the first token; values are not read.
        """
        x_bld = self.sentence_embedder.without_values(tokens.token_ids_bl, tokens.condition_b)
        return self.backbone(_with_first(x_bld, cell_bd), tokens.mask_bl)

    def read(self, head: str, x_bld: Tensor, tokens: TokenTensors, cell_bd: Tensor) -> Tensor:
        """Apply a head to token vectors, and to the cells' vectors where heads of its type read those.

        Parameters
        ----------
        head
            Its name.
        x_bld
            Token vectors, shape `(cells, tokens, width)`.
        tokens
            The tokens they are of.
        cell_bd
            Cell vectors, shape `(cells, width)`.

        Returns
        -------
        Logits or numbers, shape `(cells, tokens)`, `(cells, classes)` or `(cells, tokens, classes)`.
        """
        condition_bd = None
        if self.sentence_embedder.condition is not None:
            condition_bd = self.sentence_embedder.condition(require_condition(tokens.condition_b))
        given = HeadInput(
            x_bld=x_bld,
            cell_bd=cell_bd.to(x_bld.dtype),
            gene_bld=self.embed.genes(tokens.token_ids_bl),
            condition_bd=condition_bd,
            table=(self.embed.gene, tokens.token_ids_bl),
        )
        return read(self.heads[head], given)

    def attention_scores(self, tokens: TokenTensors, block: int) -> Tensor:
        """Return products of queries and keys of one block, unscaled; shape `(cells, heads, queries, keys)`."""
        chosen = cast("Block", self.backbone.blocks[block])
        return chosen.softmax.scores(chosen.attended(self.forward(tokens, n_blocks=block)))

    def attention_weights(self, tokens: TokenTensors, block: int) -> Tensor:
        """Return the attention weights of one block, counted from zero; shape `(cells, heads, queries, keys)`."""
        x_bld = self.forward(tokens, n_blocks=block)
        return cast("Block", self.backbone.blocks[block]).attention_weights(x_bld, tokens.mask_bl)

    def attention_received(self, tokens: TokenTensors, *, halfway: bool = False) -> Tensor:
        """Return how much each token is attended to, a mean over blocks, heads and queries; shape `(cells, tokens)`.

        In memory that is linear in the length of a sentence, for models whose attention is.

        Parameters
        ----------
        tokens
            The sentences.
        halfway
            Whether each block's attention is asked about what it has made already, as some authors do, and not about
            what it is given.
        """
        return self.backbone.attention_received(self.embed(tokens), tokens.mask_bl, halfway=halfway)


def build_embedder(config: configs.LCMConfig) -> Embedder | CellEmbedder:
    """Build the entrance of a model, by what its tokens are."""
    return CellEmbedder(config) if isinstance(config.gene, BagOfGenes) else Embedder(config)


def _with_first(x_bld: Tensor, cell_bd: Tensor | None) -> Tensor:
    """Put cell vectors in the place of the first token."""
    return x_bld if cell_bd is None else torch.cat([cell_bd.unsqueeze(1).to(x_bld.dtype), x_bld[:, 1:]], dim=1)


def _initialize(module: nn.Module) -> None:
    """Normal weights of deviation 0.02 and zero biases, as BERT and its descendants start."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        torch.nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        torch.nn.init.zeros_(module.bias)
