"""What public libraries can express of the published networks: the authors' way, as far as it can be had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Shapes = Mapping[str, tuple[int, ...]]
    Forward = Callable[[torch.Tensor], object]


def count(shapes: Shapes, start: str) -> int:
    """Depth of a stack, from the numbers in the names of its tensors."""
    return 1 + max(int(name[len(start) :].split(".")[0]) for name in shapes if name.startswith(start))


def bert(width: int, n_blocks: int, *, n_heads: int, d_hidden: int, activation: str = "gelu") -> Forward:
    """Transformers' BERT, with PyTorch's fused attention; token vectors in, as the families make their own."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=width,
        num_hidden_layers=n_blocks,
        num_attention_heads=n_heads,
        intermediate_size=d_hidden,
        hidden_act=activation,
        max_position_embeddings=4096,
        vocab_size=8,
    )
    model = BertModel._from_config(config, attn_implementation="sdpa", add_pooling_layer=False).eval()
    return lambda x_bld: model(inputs_embeds=x_bld)


def gpt2(width: int, n_blocks: int, *, n_heads: int) -> Forward:
    """Transformers' GPT-2, with PyTorch's fused attention and without a cache."""
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(n_embd=width, n_layer=n_blocks, n_head=n_heads, n_positions=4096, vocab_size=8)
    model = GPT2Model._from_config(config, attn_implementation="sdpa").eval()
    return lambda x_bld: model(inputs_embeds=x_bld, use_cache=False)


def encoder(width: int, n_blocks: int, *, n_heads: int, d_hidden: int, activation: str = "relu") -> Forward:
    """PyTorch's own encoder in evaluation, with its fast path."""
    layer = nn.TransformerEncoderLayer(width, n_heads, d_hidden, activation=activation, batch_first=True)
    return nn.TransformerEncoder(layer, n_blocks, enable_nested_tensor=False).eval()


def performer(width: int, n_blocks: int, *, n_heads: int, head_width: int, n_features: int) -> Forward:
    """The library of random features that the authors' code was taken from."""
    from performer_pytorch import Performer

    with torch.device("cpu"):  # where it draws its features, whatever is asked for
        model = Performer(
            dim=width,
            depth=n_blocks,
            heads=n_heads,
            dim_head=head_width,
            nb_features=n_features,
            auto_check_redraw=False,
        )
    return model.to(torch.get_default_device()).eval()


class EncoderAndPerformer(nn.Module):
    """scFoundation's sizes: 12 blocks over a sentence of width 768, its vectors put among 19,266, 6 blocks over all."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(768, 12, 3072, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 12, enable_nested_tensor=False)
        self.bridge = nn.Linear(768, 512)
        self.decoder = performer(512, 6, n_heads=8, head_width=64, n_features=266)

    def forward(self, x_bld: torch.Tensor) -> torch.Tensor:
        """Read a sentence, then all genes."""
        every = torch.zeros(x_bld.shape[0], 19_266, 768, device=x_bld.device)
        every[:, : x_bld.shape[1]] = self.encoder(x_bld)
        return self.decoder(self.bridge(every))


class TwoPerformers(nn.Module):
    """scTranslator's sizes: 2 blocks over 20,000 genes, layers along the sentence, 2 blocks over 1,000 proteins."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = (performer(128, 2, n_heads=8, head_width=64, n_features=266) for _ in range(2))
        self.along = nn.Sequential(nn.Linear(20_000, 4_473), nn.ReLU(), nn.Linear(4_473, 1_000))

    def forward(self, x_bld: torch.Tensor) -> torch.Tensor:
        """Read all genes, then all proteins."""
        return self.decoder(self.along(self.encoder(x_bld).transpose(1, 2)).transpose(1, 2))


def encoder_and_performer() -> nn.Module:
    """PyTorch's encoder, then the library of random features, as scFoundation has them."""
    return EncoderAndPerformer().eval()


def two_performers() -> nn.Module:
    """The library of random features twice, with layers along the sentence between, as scTranslator has them."""
    return TwoPerformers().eval()


def config_of(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """The hyper-parameters of a listed checkpoint, wherever they stand."""
    return next((facts[key] for key in ("config", "args", "hyper_parameters", "model_args") if key in facts), {})
