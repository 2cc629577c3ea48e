"""What a GGUF file says beside its weights: its tokeniser, as a Hugging Face one.

A byte-level BPE is its vocabulary, its merges and a rule that cuts text into words first. GGUF only
names that rule (`tokenizer.ggml.pre`). A wrong rule gives other tokens than the model was trained on,
and no error; so a name that is not known here is refused.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cosilo.errors import CatalogError

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
