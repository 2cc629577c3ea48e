"""The torch back end on every rung, on a tiny model; the real one where it is here."""

from __future__ import annotations

import asyncio
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny_lm
from cosilo.errors import CatalogError, ConfigError, ModelError, RejectedError, StoreError
from cosilo.models import catalog
from cosilo.models.base import Access, TextModel, models, require
from cosilo.models.chat.fields import canonical
from cosilo.models.white_box import files as torch_files
from cosilo.models.white_box.batch import device_of, has_bfloat16
from cosilo.models.white_box.decoding import draw
from cosilo.models.white_box.lm import TorchModel, torch_lm
from cosilo.models.white_box.threads import likeliest
from cosilo.models.white_box.tokens import ChatTokens
from cosilo.registry import Loads
from cosilo.testing import ModelContract
from cosilo.types import Generation, Sampling, assemble, user

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time

LABELS = ("refund", "billing", "delivery")


def ids_for(model: TorchModel, ids: Any) -> torch.Tensor:
    """Token ids where the model's weights lie: these tests also hold on a GPU."""
    return torch.tensor(np.asarray(ids, np.int64), device=device_of(model.module))


class TestContract(ModelContract):
    @pytest.fixture(autouse=True)
    def _place(self, place: Path) -> None:
        self.place = place

    def model(self) -> TextModel:
        return torch_lm(path=self.place)

    def loads(self) -> Loads:
        return models.loads("torch", {"path": self.place})


class TestContractChoices(TestContract):
    def sampling(self) -> Sampling:
        return Sampling(choices=LABELS)


class TestContractSampled(TestContract):
    def sampling(self) -> Sampling:
        return Sampling(max_tokens=12, temperature=1.2, top_p=0.9, seed=3, top_logprobs=3)


async def test_a_reply_is_what_plain_decoding_gives(model: TorchModel) -> None:
    """Greedy, token by token, without a cache: the slow, obvious version."""
    reply = await model.generate(user("hello"), Sampling(max_tokens=10, top_logprobs=2))
    ids = model.tokens.prompt(user("hello"))
    said: list[int] = []
    logprobs: list[float] = []
    for _ in range(10):
        with torch.no_grad():
            row = model.module(ids_for(model, [ids + said])).logits[0, -1].log_softmax(-1)
        if int(row.argmax()) == model.tokens.end:
            break
        said.append(int(row.argmax()))
        logprobs.append(float(row.max()))
    text = b"".join(model.tokens.piece(i) for i in said).decode("utf-8", "replace")
    assert reply.text == text
    assert [t.logprob for t in reply.tokens] == pytest.approx(logprobs, abs=1e-4)
    assert all(t.top[0][1] == pytest.approx(t.logprob) for t in reply.tokens)
    assert (reply.prompt_tokens, reply.seconds > 0) == (len(ids), True)


async def test_replies_written_together_are_those_written_alone(model: TorchModel) -> None:
    chats = [user("hello" * n) for n in (1, 5, 2, 9)]
    samplings = [
        Sampling(max_tokens=n, temperature=t, seed=n) for n, t in ((3, 0), (9, 1), (12, 0), (1, 1))
    ]
    alone = [await model.generate(c, s) for c, s in zip(chats, samplings, strict=True)]
    batches: list[int] = []
    compute = model._compute
    model._compute = lambda jobs: batches.append(len(jobs)) or compute(jobs)  # type: ignore
    together = await asyncio.gather(*map(model.generate, chats, samplings))
    assert batches == [4]
    assert [r.text for r in together] == [r.text for r in alone]
    assert [r.completion_tokens for r in together] == [r.completion_tokens for r in alone]


async def test_a_prompt_that_several_replies_share_is_read_once(model: TorchModel) -> None:
    chats = [user("hello" * n) for n in (1, 5, 1, 1, 5)]
    samplings = [
        Sampling(max_tokens=n, temperature=1, seed=seed) for seed, n in enumerate((3, 9, 12, 12, 1))
    ]
    alone = [await model.generate(c, s) for c, s in zip(chats, samplings, strict=True)]
    rows: list[int] = []
    hook = model.module.register_forward_pre_hook(
        lambda _, __, named: rows.append(len(named["input_ids"])), with_kwargs=True
    )
    try:
        together = await asyncio.gather(*map(model.generate, chats, samplings))
    finally:
        hook.remove()
    assert [r.text for r in together] == [r.text for r in alone]
    assert rows[:2] == [2, sum(r.completion_tokens > 1 for r in alone)]


async def test_a_seed_gives_the_same_reply_and_another_one_another(model: TorchModel) -> None:
    def ask(seed: int) -> Any:
        return model.generate(user("q"), Sampling(max_tokens=12, temperature=1.0, seed=seed))

    first, again, other = [(await ask(s)).text for s in (1, 1, 2)]
    assert first == again != other


async def test_samples_follow_the_models_probabilities(model: TorchModel) -> None:
    model.parallel = 400
    replies = await asyncio.gather(
        *(
            model.generate(user("q"), Sampling(max_tokens=1, temperature=0.25, top_p=0.5, seed=s))
            for s in range(400)
        )
    )
    ids = model.tokens.prompt(user("q"))
    with torch.no_grad():
        logits = model.module(ids_for(model, [ids])).logits[0, -1].cpu().double()
        p = (logits / 0.25).softmax(-1).numpy()
    ranked = np.argsort(-p)
    kept = ranked[: int(np.searchsorted(np.cumsum(p[ranked]), 0.5)) + 1]
    texts = [model.tokens.piece(int(i)).decode("utf-8", "replace") for i in kept]
    assert {r.text for r in replies} <= set(texts)
    share = sum(r.text == texts[0] for r in replies) / 400
    expected = sum(p[i] for i, t in zip(kept, texts, strict=True) if t == texts[0]) / p[kept].sum()
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / 400)


async def test_further_fields_leave_the_likeliest_tokens_or_are_refused(model: TorchModel) -> None:
    model.parallel = 40
    greedy = await model.generate(user("q"), Sampling(max_tokens=6))
    for fields in ({"top_k": 1}, {"min_p": 1.0}):
        wild = Sampling(max_tokens=6, temperature=2.0, seed=5, fields=canonical(fields))
        assert (await model.generate(user("q"), wild)).text == greedy.text
    all_of_them = Sampling(max_tokens=6, temperature=2.0, seed=5, fields=canonical({"top_k": -1}))
    free = Sampling(max_tokens=6, temperature=2.0, seed=5)
    assert (await model.generate(user("q"), all_of_them)).text == (
        await model.generate(user("q"), free)
    ).text
    refused = Sampling(fields=canonical({"presence_penalty": 1.0}))
    with pytest.raises(RejectedError, match="presence_penalty"):
        await model.generate(user("q"), refused)


def test_tokens_that_do_not_stay_are_never_drawn() -> None:
    """Against a plain loop: of 30 tokens those within `top_k`, and likely enough for `min_p`."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(300, 30)).astype(np.float32) * 2
    top_k = rng.choice([0, 1, 3, 10, 99], 300).tolist()
    min_p = rng.choice([0.0, 0.1, 0.5], 300).tolist()
    top_p = rng.choice([0.6, 1.0], 300).tolist()
    chances = rng.random(300).tolist()
    found = draw(torch.from_numpy(logits), [1.0] * 300, top_p, chances, top_k, min_p).tolist()
    for row, k, least, most, chance, token in zip(
        logits.astype(np.float64), top_k, min_p, top_p, chances, found, strict=True
    ):
        p = np.exp(row - row.max())
        kept = [i for i in np.argsort(-p, kind="stable") if p[i] >= least * p.max()][: k or 30]
        share, summed, stay = sum(p[i] for i in kept), 0.0, []
        for i in kept:
            if summed < most * share or not stay:
                stay.append(i)
            summed += p[i]
        passed, total = 0.0, sum(p[i] for i in stay)
        for i in sorted(stay):
            passed += p[i]
            if passed > chance * total:
                break
        assert token == i


def test_a_draw_is_the_token_at_which_the_probabilities_exceed_the_chance() -> None:
    """Against a plain loop over the vocabulary, for each row by its own settings."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 30)).astype(np.float32) * 2
    temperatures = rng.choice([0.3, 1.0, 2.0], 200).tolist()
    top_p = rng.choice([0.0, 0.4, 0.9, 1.0], 200).tolist()
    chances = [*rng.random(196).tolist(), 0.0, 0.0, 1 - 1e-16, 1 - 1e-16]
    found = draw(torch.from_numpy(logits), temperatures, top_p, chances).tolist()
    for row, temperature, most, chance, token in zip(
        logits.astype(np.float64), temperatures, top_p, chances, found, strict=True
    ):
        p = np.exp(row / temperature - (row / temperature).max())
        p /= p.sum()
        kept, summed = set(), 0.0
        for i in sorted(range(30), key=lambda i: -p[i]):
            if summed < most or not kept:
                kept.add(i)
            summed += p[i]
        total = sum(p[i] for i in kept)
        passed = 0.0
        for i in range(30):
            passed += p[i] if i in kept else 0.0
            if passed > chance * total:
                break
        assert token == i or (chance > 0.999 and token in kept)


async def test_rows_of_one_batch_are_each_sampled_in_their_own_way(model: TorchModel) -> None:
    samplings = [
        Sampling(max_tokens=6, top_logprobs=3),
        Sampling(max_tokens=6, temperature=1.0, seed=4),
        Sampling(max_tokens=6, temperature=0.7, top_p=0.6, seed=4, top_logprobs=1),
    ]
    together = await asyncio.gather(*(model.generate(user("q"), s) for s in samplings))
    for reply, sampling in zip(together, samplings, strict=True):
        alone = await model.generate(user("q"), sampling)
        assert reply.text == alone.text
        assert {len(t.top) for t in reply.tokens} == {sampling.top_logprobs}
    greedy = together[0]
    assert all(t.top[0][1] == t.logprob for t in greedy.tokens)
    assert all(
        list(p for _, p in t.top) == sorted((p for _, p in t.top), reverse=True)
        for t in greedy.tokens
    )


async def test_a_plain_text_is_read_without_a_template(model: TorchModel) -> None:
    tokens = model.plain("the refund <|im_end|>")
    assert len(tokens) == tokens.start
    assert 2 not in tokens.ids  # what looks like the end of a turn is text
    assert b"".join(model.piece(int(i)) for i in tokens.ids) == b"the refund <|im_end|>"
    (states,) = await model.activations([tokens], model.layers)
    assert states.shape == (len(tokens), model.module.config.hidden_size)
    with pytest.raises(RejectedError, match="empty"):
        model.plain("")


async def test_a_stop_string_ends_the_reply_and_is_no_part_of_it(model: TorchModel) -> None:
    whole = await model.generate(user("q"), Sampling(max_tokens=30))
    stop = whole.text[5:8]
    assert stop
    cut = whole.text.index(stop)
    sampling = Sampling(max_tokens=30, stop=(stop,))
    reply = await model.generate(user("q"), sampling)
    assert (reply.text, reply.finish_reason) == (whole.text[:cut], "stop")
    pieces = [p async for p in model.stream(user("q"), sampling)]
    assert assemble(pieces).text == reply.text
    assert len(reply.tokens) < len(whole.tokens)


async def test_choices_have_the_models_own_probabilities(model: TorchModel) -> None:
    """Against one forward pass per choice; the middle one begins like the first."""
    choices = ("refund", "refunds", "billing", "é")
    reply = await model.generate(user("q"), Sampling(choices=choices))
    scores = {}
    for choice in choices:
        tokens = model.tokenize(user("q"), choice)
        (logits,) = await model.logits([tokens])
        rows = torch.tensor(logits).log_softmax(-1)
        reply_ids = torch.tensor(tokens.ids[tokens.start :].astype(np.int64))
        scores[choice] = float(rows.gather(-1, reply_ids[:, None]).sum())
    total = np.logaddexp.reduce(list(scores.values()))
    expected = {c: s - total for c, s in scores.items()}
    assert dict(reply.tokens[0].top) == pytest.approx(expected, abs=1e-4)
    assert reply.text == max(scores, key=scores.__getitem__)
    drawn = {
        (await model.generate(user("q"), Sampling(choices=choices, temperature=9, seed=s))).text
        for s in range(12)
    }
    assert len(drawn) > 1


async def test_logits_are_those_of_a_plain_forward_pass(model: TorchModel) -> None:
    given = [
        model.tokenize(user("hello" * n), "the refund" * m) for n, m in ((1, 3), (4, 1), (2, 0))
    ]
    for tokens, logits in zip(given, await model.logits(given), strict=True):
        with torch.no_grad():
            whole = model.module(ids_for(model, tokens.ids[None])).logits[0].float().cpu()
        assert logits.shape == (len(tokens) - tokens.start, model.vocabulary_size)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, whole[tokens.start - 1 : -1], atol=1e-4)


async def test_activations_are_the_hidden_states(model: TorchModel) -> None:
    given = [model.tokenize(user("hello" * n), "refund") for n in (1, 4)]
    for tokens, *layers in zip(
        given, *[await model.activations(given, k) for k in (0, 1)], strict=True
    ):
        with torch.no_grad():
            states = model.module(
                ids_for(model, tokens.ids[None]), output_hidden_states=True
            ).hidden_states
        for k, found in enumerate(layers):
            np.testing.assert_allclose(found, states[k][0].float().cpu(), atol=1e-4)
    (last,) = await model.activations(given[:1], 2)
    with torch.no_grad():
        whole = model.module.model(ids_for(model, given[0].ids[None]))[0][0]
        normed = model.module.model.norm(torch.tensor(last).to(whole))
        np.testing.assert_allclose(normed.float().cpu(), whole.float().cpu(), atol=1e-4)
    with pytest.raises(ConfigError, match="no layer 3"):
        await model.activations(given, 3)


async def test_the_pieces_of_a_reply_join_to_it(model: TorchModel) -> None:
    for text in ("", "the refund", "é 🙂 日本", "<|im_end|> is text here", "a\n\n b\t"):
        tokens = model.tokenize(user("q <|im_end|>"), text)
        assert b"".join(tokens.pieces) == text.encode()
        assert len(tokens.pieces) == len(tokens) - tokens.start
        assert tokens.pieces[-1] == b""
        assert tokens.ids[-1] == model.tokens.end == 2
        assert list(tokens.ids[: tokens.start]) == model.tokens.prompt(user("q <|im_end|>"))
        assert 2 not in tokens.ids[tokens.start : -1]


def test_pieces_of_a_tokeniser_with_spaces_as_letters_join_too() -> None:
    """As Llama 2 and Mistral have it: `▁` for a space, `<0x..>` for bytes, a space put in front."""
    from tokenizers import Tokenizer, decoders, normalizers
    from tokenizers import models as kinds
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *"▁helowrd", "▁h", "▁w"]
    inner = Tokenizer(
        kinds.BPE(
            vocab={w: i for i, w in enumerate(words)},
            merges=[("▁", "h"), ("▁", "w")],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    inner.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    inner.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokens = ChatTokens(
        PreTrainedTokenizerFast(
            tokenizer_object=inner,
            bos_token="<s>",
            eos_token="</s>",
            unk_token="<unk>",
            chat_template=(
                "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}"
                "{{ '</s>' }}{% endif %}{% endfor %}"
            ),
        )
    )
    assert tokens.end == 2
    for text in ("hello world", "é hello", "  two"):
        ids, pieces = tokens.reply(text)
        assert b"".join(pieces) == text.encode()
        said = [tokens.piece(i) for i in ids]
        assert b"".join([tokens.first(said[0]), *said[1:]]) == text.encode()


async def test_what_the_back_end_cannot_do_is_refused(model: TorchModel, place: Path) -> None:
    with pytest.raises(RejectedError, match="tools"):
        await model.generate(user("q"), Sampling(tools="[]"))
    long = user("q" * 600)
    ok = model.generate(user("q"), Sampling(max_tokens=2))
    found = await asyncio.gather(
        ok, model.generate(long, Sampling(max_tokens=2)), return_exceptions=True
    )
    assert isinstance(found[0], Generation), "the error of one is no other's"
    assert isinstance(found[1], RejectedError)
    assert "512" in str(found[1])
    assert "qqq" not in str(found[1])
    with pytest.raises(RejectedError, match="context 512"):
        await model.logits([model.tokenize(long, "x")])
    near = user("q" * (512 - len(model.tokens.prompt(user(""))) - 3))
    assert (await model.generate(near, Sampling(max_tokens=50))).completion_tokens <= 3


async def test_who_leaves_a_stream_frees_its_place(model: TorchModel) -> None:
    pieces = model.stream(user("q"), Sampling(max_tokens=400))
    async for _ in pieces:
        break
    await pieces.aclose()
    reply = await model.generate(user("q"), Sampling(max_tokens=2))
    assert reply.completion_tokens == 2
    await model.close()
    assert (await model.generate(user("q"), Sampling(max_tokens=2))).text == reply.text


def test_pickles_and_missing_files_are_refused(place: Path, tmp_path: Path) -> None:
    copied = tmp_path / "model"
    shutil.copytree(place, copied)
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    with pytest.raises(CatalogError, match=r"pytorch_model\.bin is a pickle"):
        torch_lm(path=copied)
    (copied / "config.json").unlink()
    with pytest.raises(CatalogError, match=r"no config\.json"):
        torch_lm(path=copied)
    with pytest.raises(CatalogError, match="is not there"):
        torch_lm(path=tmp_path / "nowhere")
    with pytest.raises(CatalogError, match=r"no adapter_config\.json"):
        torch_lm(path=place, adapter=copied)
    with pytest.raises(ConfigError, match="either model"):
        torch_lm()
    (tmp_path / "x.gguf").write_bytes(b"nothing")
    with pytest.raises(CatalogError, match="cannot be read as a GGUF"):
        torch_lm(path=tmp_path / "x.gguf").tokenize(user("q"), "")


def test_code_that_comes_with_a_model_is_not_run(place: Path, tmp_path: Path) -> None:
    import json

    copied = tmp_path / "model"
    shutil.copytree(place, copied)
    config = json.loads((copied / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"},
    }
    (copied / "config.json").write_text(json.dumps(config))
    (copied / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(CatalogError, match="cannot be loaded"):
        torch_lm(path=copied).tokenize(user("q"), "")
    assert not (tmp_path / "ran").exists()


def test_identity_is_the_content(place: Path, tmp_path: Path) -> None:
    copied = tmp_path / "elsewhere"
    shutil.copytree(place, copied)
    assert torch_lm(path=copied).identity == torch_lm(path=place).identity
    other = tiny_lm.folder(tmp_path / "other", seed=1)
    assert torch_lm(path=other).identity != torch_lm(path=place).identity
    module, words = tiny_lm.module(300), ChatTokens(tiny_lm.tokenizer())
    held = TorchModel.holding(module, words, name="held")
    before = held.identity
    with torch.no_grad():
        module.model.norm.weight[0] += 1
    assert held.identity != before


def test_equal_vocabularies_are_told_by_their_hash(place: Path) -> None:
    same = ChatTokens(tiny_lm.tokenizer())
    assert same.vocabulary == torch_lm(path=place).vocabulary
    assert ChatTokens(tiny_lm.tokenizer(("other",))).vocabulary != same.vocabulary


def test_it_is_registered_on_the_top_rung(place: Path) -> None:
    model = models.create("torch", path=place)
    assert require(model, Access.WEIGHTS, by="test").vocabulary_size == len(tiny_lm.tokenizer())


def test_bfloat16_is_used_only_where_the_machine_has_it(place: Path) -> None:
    assert torch_lm(path=place).module.dtype is (
        torch.bfloat16 if has_bfloat16() else torch.float32
    )
    assert torch_lm(path=place, precision="bfloat16").module.dtype is torch.bfloat16


def test_a_full_disk_while_saving_is_said(
    model: TorchModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model"
    model.save(target)
    before = sorted(p.name for p in target.iterdir())

    def full(self: Any, folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(model.module), "save_pretrained", full)
    with pytest.raises(StoreError, match="No space left on device"):
        model.save(target)
    assert sorted(p.name for p in target.iterdir()) == before
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


TEXTS = (
    "Hello world 12345, it's 3.14!  two  spaces\n\nnew",
    "日本語のテキスト é ü 🙂",
    "def f(x):\n    return x+1\t#c  ",
    "I'LL don't we've ½ 10:30 and <b>bold</b>",
)


@pytest.mark.models("smollm2-135m-instruct")
@pytest.mark.slow
async def test_the_real_gguf_is_unpacked_once_and_agrees_with_llama_cpp() -> None:
    from cosilo.models.gguf.llamacpp import llamacpp

    mine = torch_lm("smollm2-135m-instruct", precision="float32")
    other = llamacpp("smollm2-135m-instruct", threads=1)
    source = catalog.path("smollm2-135m-instruct")
    folder = torch_files.unpack(source)
    try:
        for text in TEXTS:
            assert mine.tokens.reply(text)[0][:-1] == [i for i, _ in other._opened().tokens(text)]
        chat = user("Write a short poem about rain.")
        sampling = Sampling(max_tokens=12, top_logprobs=5)
        ours, theirs = await mine.generate(chat, sampling), await other.generate(chat, sampling)
        assert ours.prompt_tokens == theirs.prompt_tokens
        assert ours.text == theirs.text
        # llama.cpp also quantises the activations, so it is near and not equal.
        first, second = dict(ours.tokens[0].top), dict(theirs.tokens[0].top)
        assert first == pytest.approx(second, abs=0.2)
        written = (folder / "model.safetensors").stat().st_mtime_ns
        assert torch_files.unpack(source) == folder
        assert (folder / "model.safetensors").stat().st_mtime_ns == written
    finally:
        await mine.close()
        await other.close()


def test_of_equally_likely_tokens_the_one_that_is_written_comes_first() -> None:
    logits = torch.zeros(2, 300)
    logits[0, [7, 250]] = 3.0
    found = likeliest(logits, 4)
    assert found.ids[0, :2].tolist() == [7, 250]
    logits[0, 3:] = 3.0
    assert likeliest(logits, 1).ids[0].tolist() == [logits[0].argmax()] == [3]
    with pytest.raises(ModelError, match="not finite"):
        likeliest(torch.full((1, 9), float("nan")), 2)
