"""GGUF files: their tokeniser as a Hugging Face one, and a module written as such a file.

A byte-level BPE is its vocabulary, its merges and a rule that cuts text into words first. GGUF only
names that rule (`tokenizer.ggml.pre`). A wrong rule gives other tokens than the model was trained on,
and no error; so a name that is not known here is refused.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from cosilo.errors import CatalogError, ConfigError, StoreError
from cosilo.registry import unknown

_CONTROL, _USER_DEFINED = 3, 4

# Words, single numbers or groups of up to three, signs, line ends, spaces: as the models' authors cut.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{number}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS = {
    "qwen2": _WORDS.format(number=r"\p{N}"),
    "llama-bpe": _WORDS.format(number=r"\p{N}{1,3}"),
}
_KNOWN = ("gpt-2", "smollm", *_SPLITS)


def read_fields(gguf: Path) -> dict[str, Any]:
    """The metadata of a GGUF file by name.

    Raises:
        CatalogError: it is no GGUF file.
    """
    from gguf import GGUFReader

    try:
        return {name: field.contents() for name, field in GGUFReader(gguf).fields.items()}
    except (OSError, ValueError, KeyError, IndexError):
        raise CatalogError(f"{str(gguf)!r} cannot be read as a GGUF file") from None


def read_tokenizer(gguf: Path) -> Any:
    """The tokeniser of a GGUF file with its chat template, as transformers has it.

    Raises:
        CatalogError: it is not a byte-level BPE, or cuts words by a rule that is not known here.
    """
    from transformers import PreTrainedTokenizerFast

    about = read_fields(gguf)
    kind = about.get("tokenizer.ggml.model")
    pre = about.get("tokenizer.ggml.pre", "gpt-2")
    if kind != "gpt2" or pre not in _KNOWN:
        raise CatalogError(
            f"the tokeniser of {str(gguf)!r} ({kind!r}, {pre!r}) is not known here (known: 'gpt2' "
            f"with {', '.join(map(repr, _KNOWN))}); use the model's Hugging Face folder instead"
        )
    tokens = about["tokenizer.ggml.tokens"]

    def named(role: str) -> str | None:
        number = about.get(f"tokenizer.ggml.{role}_token_id")
        return None if number is None else str(tokens[number])

    return PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(about, pre),
        bos_token=named("bos"),
        eos_token=named("eos"),
        unk_token=named("unknown"),
        pad_token=named("padding") or named("eos"),
        chat_template=about.get("tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
        model_max_length=int(about.get(f"{about['general.architecture']}.context_length", 1 << 20)),
    )


def _tokenizer(about: dict[str, Any], pre: str) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
    from tokenizers import pre_tokenizers as cut

    tokens = about["tokenizer.ggml.tokens"]
    merges = [tuple(m.split(" ")) for m in about["tokenizer.ggml.merges"]]
    found = Tokenizer(
        models.BPE(
            vocab={t: i for i, t in enumerate(tokens)},
            merges=merges,
            ignore_merges=pre == "llama-bpe",
        )
    )
    whole = cut.ByteLevel(add_prefix_space=False, use_regex=pre not in _SPLITS)
    if pre == "smollm":
        found.pre_tokenizer = cut.Sequence([cut.Digits(individual_digits=True), whole])
    elif pre in _SPLITS:
        found.pre_tokenizer = cut.Sequence([cut.Split(Regex(_SPLITS[pre]), "isolated"), whole])
    else:
        found.pre_tokenizer = whole
    if pre == "qwen2":
        found.normalizer = normalizers.NFC()
    found.decoder = decoders.ByteLevel()
    types = about.get("tokenizer.ggml.token_type", ())
    found.add_special_tokens(
        [
            AddedToken(t, normalized=False)
            for t, k in zip(tokens, types, strict=True)
            if k == _CONTROL
        ]
    )
    found.add_tokens(
        [
            AddedToken(t, normalized=False)
            for t, k in zip(tokens, types, strict=True)
            if k == _USER_DEFINED
        ]
    )
    return found


QUANTISATIONS = ("Q8_0", "Q4_0")
"""What `export` can write, the most bits first. Embedding and head are Q8_0 in either."""

_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_ENDS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_ARCHITECTURES = ("llama", "qwen2")
_REWRITTEN = ("general.architecture", "general.name", "general.file_type", "general.size_label")
_BLOCK = 32  # values that share a scale, along a row


def export(module: Any, source: Path, path: Path, *, quantisation: str = "Q8_0", name: str) -> None:
    """Write `module` as a GGUF file, with the tokeniser and all else that `source` says beside weights.

    Args:
        module: of the architecture of `source`, with as many layers as it likes.
        source: the GGUF file that the module came from.

    Raises:
        ConfigError: the architecture or a weight is not known here, or it has no such quantisation.
        StoreError: the file cannot be written; what was there stays.
    """
    import gguf

    if quantisation not in QUANTISATIONS:
        raise ConfigError(unknown("quantisation", quantisation, QUANTISATIONS))
    reader = gguf.GGUFReader(source)
    kind = str(reader.fields["general.architecture"].contents())
    if kind not in _ARCHITECTURES or module.config.model_type != kind:
        raise ConfigError(
            f"a {module.config.model_type!r} module from a {kind!r} GGUF cannot be exported (known: "
            f"{', '.join(_ARCHITECTURES)})"
        )
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = gguf.GGUFWriter(temporary, kind)
        for field in reader.fields.values():
            own = field.name.startswith("GGUF.") or field.name in _REWRITTEN
            if not own and field.name != f"{kind}.block_count":
                array = field.types[0] == gguf.GGUFValueType.ARRAY
                writer.add_key_value(
                    field.name, field.contents(), field.types[0], field.types[-1] if array else None
                )
        writer.add_name(name)
        writer.add_block_count(int(module.config.num_hidden_layers))
        writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{quantisation}"])
        for label, parameter in module.named_parameters():
            array, stored = _stored(label, parameter, module.config, kind, quantisation)
            writer.add_tensor(_name(label), array, raw_dtype=stored)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        temporary.replace(path)
    except OSError as error:
        raise StoreError(f"{str(path)!r} cannot be written: {error.strerror}") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def _stored(
    label: str, parameter: Any, config: Any, kind: str, quantisation: str
) -> tuple[Any, Any]:
    """A weight as it is stored, and its type."""
    import gguf

    array = np.ascontiguousarray(parameter.detach().float().cpu().numpy())
    if kind == "llama" and ".q_proj." in label:
        array = _interleaved(array, config.num_attention_heads)
    if kind == "llama" and ".k_proj." in label:
        array = _interleaved(array, config.num_key_value_heads)
    if array.ndim < 2 or array.shape[1] % _BLOCK:
        return array, gguf.GGMLQuantizationType.F32
    wanted = gguf.GGMLQuantizationType["Q8_0" if label in _ENDS else quantisation]
    return gguf.quants.quantize(array, wanted), wanted


def _interleaved(array: Any, heads: int) -> Any:
    """Rows in llama.cpp's order: what rotates together stands side by side, not half a head apart."""
    halves = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(array.shape))


def _name(label: str) -> str:
    """A weight's name in GGUF."""
    if label in _ENDS:
        return _ENDS[label]
    match = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)", label)
    if match is None or match[2] not in _NAMES:
        raise ConfigError(f"the weight {label!r} has no place in a GGUF that is known here")
    return f"blk.{match[1]}.{_NAMES[match[2]]}.{match[3]}"
