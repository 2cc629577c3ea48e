"""A llama of two layers with a byte-level tokeniser and a chat template, made in no time."""

from __future__ import annotations

import json
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
    vocabulary: int,
    *,
    layers: int = 2,
    hidden: int = 64,
    seed: int = 0,
    scale: float = 1.0,
    context: int = 512,
) -> Any:
    """A llama with random weights (`seed`, times `scale`), in evaluation mode."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from cosilo.models.white_box.training import seeded

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=2,
    )
    with seeded(seed):  # a training that was cancelled may still go on in another thread
        made = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale)
    return made


def folder(place: Path, **options: Any) -> Path:
    """`place`, filled with an ordinary Hugging Face folder of a tiny model."""
    words = tokenizer()
    module(len(words), **options).save_pretrained(place)
    words.save_pretrained(place)
    return place


def gguf(path: Path, *, pre: str = "gpt-2", **options: Any) -> Path:
    """`path`, written as a GGUF file of a tiny model whose tokeniser and template it holds."""
    import gguf as format_

    from cosilo.models.white_box import gguf as torch_gguf

    words = tokenizer()
    model = module(len(words), **options)
    tokens = [words.convert_ids_to_tokens(i) for i in range(len(words))]
    inner = json.loads(words.backend_tokenizer.to_str())["model"]
    bare = path.with_suffix(".bare")
    writer = format_.GGUFWriter(bare, "llama")
    config = model.config
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if t in SPECIAL else 1 for t in tokens])
    writer.add_token_merges([" ".join(m) for m in inner["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    torch_gguf.export(model, bare, path, name="tiny")
    bare.unlink()
    return path
