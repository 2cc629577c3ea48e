"""A llama of two layers with a byte-level tokeniser and a chat template, made in no time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
WORDS = ("refund", "billing", "delivery", " about", " is", " the", "the", "hello", " world")


def tokenizer(words: Sequence[str] = WORDS) -> Any:
    """All 256 bytes, the merges that make up `words` (ASCII, a space only in front), three specials."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges: list[tuple[str, str]] = []
    for word in words:
        left = ""
        for letter in word.replace(" ", "Ġ"):
            if left and (left, letter) not in merges:
                merges.append((left, letter))
            left += letter
            if left not in pieces:
                pieces.append(left)
    inner = Tokenizer(models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token=SPECIAL[0],
        eos_token=SPECIAL[2],
        pad_token=SPECIAL[2],
        additional_special_tokens=[SPECIAL[1]],
        chat_template=TEMPLATE,
    )


def module(
    vocabulary: int, *, layers: int = 2, hidden: int = 64, seed: int = 0, tied: bool = True
) -> Any:
    """A llama with random weights (`seed`), in evaluation mode."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=2,
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def folder(place: Path, **options: Any) -> Path:
    """`place`, filled with an ordinary Hugging Face folder of a tiny model."""
    words = tokenizer()
    module(len(words), **options).save_pretrained(place)
    words.save_pretrained(place)
    return place
