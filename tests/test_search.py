"""The search in C++ finds what fairseq's SequenceGenerator does, with every option."""

import math
import threading
from collections import Counter
from copy import deepcopy
from typing import NamedTuple

import pytest
import torch
from fairseq.ngram_repeat_block import NGramRepeatBlock
from fairseq.search import BeamSearch
from fairseq.sequence_generator import SequenceGenerator
from test_translation import VARIANTS, batch, build, sentences, variant_id

from fairseq_sru.inference import Engine, GenerationOptions, read_model
from fairseq_sru.models.language_model import SRUppLanguageModel
from fairseq_sru.models.lm_config import SRUppLMConfig
from fairseq_sru.ops.extension import COMPILED

pytestmark = pytest.mark.skipif(not COMPILED, reason="fairseq_sru_ext is not built")

EOS = 2

# Times what fairseq loses: its own losses, step by step and whole, differ by as much.
ALLOWED = 4

# by the names of SequenceGenerator
NAMES = dict(lenpen="len_penalty", unkpen="unk_penalty", beam="beam_size")


def strong_model(seed=0, **options):
    """Random weights large enough for hypotheses to differ and to end."""
    model = build(**options).float()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.25 * torch.randn(parameter.shape, generator=generator)
    return model


def random_sources(count, longest=9, seed=0):
    """Sentences of 1 to ``longest`` tokens, and the end."""
    rows = sentences(count, 1, longest + 1, 30, seed)
    return [torch.cat([row, torch.tensor([EOS])]) for row in rows]


class WatchedBeamSearch(BeamSearch):
    """fairseq's, and how close it ever was to another choice: two of the candidates that it looks
    at, or the last and the next one."""

    closest = math.inf

    def step(self, step, lprobs, scores, *args):
        _, beam, _ = lprobs.shape
        totals = lprobs[:, :1] if step == 0 else lprobs + scores[:, :, step - 1 :]
        totals = totals.flatten()
        best = totals.topk(min(2 * beam + 1, len(totals))).values
        gaps = best[:-1] - best[1:]
        self.closest = min([self.closest, *gaps[gaps.isfinite()].tolist()])
        return super().step(step, lprobs, scores, *args)


class Found(NamedTuple):
    """What SequenceGenerator finds for a sentence."""

    hypotheses: list
    closest: float  # difference of two totals that decided something


def fairseqs(model, sources, prefixes=None, **options):
    """Sentence by sentence, as batches change its limits."""
    dictionary = model.decoder.dictionary
    options = {NAMES.get(name, name): value for name, value in options.items()}
    size = options.pop("no_repeat_ngram_size", 0)
    unnormalized = options.pop("unnormalized", False)
    found = []
    for i, source in enumerate(sources):
        search = WatchedBeamSearch(dictionary)
        generator = SequenceGenerator(
            [model], dictionary, normalize_scores=not unnormalized, search_strategy=search,
            **options)
        if size:
            generator.repeat_ngram_blocker = NGramRepeatBlock(size)
        sample = {"net_input": {"src_tokens": source[None],
                                "src_lengths": torch.tensor([len(source)])}}
        prefix = {} if prefixes is None or not len(prefixes[i]) else {
            "prefix_tokens": prefixes[i][None]}
        (hypotheses,) = generator.generate([model], sample, **prefix)
        found.append(Found(hypotheses, search.closest))
    return found


def by_tokens(hypotheses):
    return {tuple(h["tokens"].tolist()): h for h in hypotheses}


class Rounding(NamedTuple):
    """How far fairseq's own float32 is from the model in float64, at most."""

    score: float
    total: float  # of any number of tokens
    token: float
    attention: float


NONE = Rounding(0.0, 0.0, 0.0, 0.0)


def rounding(theirs, exact):
    """Of the hypotheses of some sentences that were found both ways."""
    largest = [NONE]
    for found, right in zip(theirs, exact):
        found, right = by_tokens(found.hypotheses), by_tokens(right.hypotheses)
        for tokens in found.keys() & right.keys():
            score, each, attention = (
                found[tokens][name] - right[tokens][name]
                for name in ("score", "positional_scores", "attention"))
            largest.append(Rounding(*(
                x.abs().max().item() if x.numel() else 0.0
                for x in (score, each.cumsum(0), each, attention))))
    return Rounding(*map(max, zip(*largest)))


def near(score, other, rounded=0.0):
    return abs(score - other) < max(1e-5 * max(1, abs(other)), ALLOWED * rounded)


def same(ours, theirs, rounded=NONE):
    """Equal hypotheses and scores, to 1e-5 or, of large ones, 1e-5 of them: ours are float32; or to
    ALLOWED times what fairseq's are ``rounded``. Where two of fairseq's are that equal, either may
    come first, and the last may be one of several."""
    assert len(ours) == len(theirs)
    expected = by_tokens(theirs)
    for hypothesis, at_its_place in zip(ours, theirs):
        assert near(hypothesis.score, at_its_place["score"].item(), rounded.score)
        h = expected.get(tuple(hypothesis.tokens.tolist()))
        if h is None:
            assert near(hypothesis.score, theirs[-1]["score"].item(), rounded.score)
            continue
        total = hypothesis.token_scores.sum().abs().item()  # whose rounding is in the differences
        torch.testing.assert_close(
            hypothesis.token_scores, h["positional_scores"], rtol=1e-5,
            atol=max(1e-5 + total * 2**-21, ALLOWED * rounded.token))
        if hypothesis.alignment is not None and h["attention"].numel():
            torch.testing.assert_close(
                hypothesis.alignment.t(), h["attention"], rtol=0,
                atol=max(1e-5, ALLOWED * rounded.attention))


def compare(model, sources, prefixes=None, max_rows=320, ties=False, **options):
    """With fairseq's search of the same model in float64. With ``ties`` another result is right
    where two totals were as good as equal: rounding decided."""
    engine = Engine(read_model(model))
    nbest = options.setdefault("beam", 5)
    ours = engine.translate(
        sources, GenerationOptions(nbest=nbest, align=True, max_rows=max_rows, **options),
        prefixes)
    exact = fairseqs(deepcopy(model).double(), sources, prefixes, **options)
    rounded = rounding(fairseqs(model, sources, prefixes, **options), exact)
    for mine, right in zip(ours, exact):
        tie = right.closest < max(1e-5, ALLOWED * rounded.total)
        others = {tuple(h.tokens.tolist()) for h in mine} - set(by_tokens(right.hypotheses))
        if not (ties and tie and others):
            same(mine, right.hypotheses, rounded)


@pytest.mark.parametrize("options", VARIANTS, ids=variant_id)
def test_models(options):
    compare(strong_model(**options), random_sources(6), max_len_b=20)


@pytest.mark.parametrize("options", [
    dict(beam=1),
    dict(beam=2),
    dict(beam=8),
    dict(lenpen=0.0),
    dict(lenpen=2.5),
    dict(unnormalized=True),
    dict(unkpen=3.0),
    dict(unkpen=-3.0),
    dict(min_len=8),
    dict(max_len_a=1.5, max_len_b=2),
    dict(max_len=6),
    dict(max_len_b=0, min_len=0),
    dict(match_source_len=True),
    dict(no_repeat_ngram_size=2),
    dict(no_repeat_ngram_size=3, beam=3),
    dict(temperature=0.5),
    dict(temperature=2.0),
], ids=variant_id)
def test_options(options):
    compare(strong_model(1), random_sources(6, seed=1), **{"max_len_b": 20, **options})


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("length", [1, 3, 30])
def test_prefixes(length, beam):
    """Shorter and longer than hypotheses may be."""
    prefixes = [torch.randint(4, 25, (length,), generator=torch.Generator().manual_seed(i))
                for i in range(4)]
    compare(strong_model(2), random_sources(4), prefixes, beam=beam, max_len_b=20)


@pytest.mark.parametrize("sampling", [False, True])
def test_order_and_company_change_nothing(sampling):
    """Many sentences through few rows, or each alone; samples belong to a sentence's place."""
    engine = Engine(read_model(strong_model(3)))
    sources = random_sources(30, 12)

    def translate(chosen, **options):
        return engine.translate(
            chosen, GenerationOptions(beam=3, nbest=3, max_len_b=30, sampling=sampling, **options))

    expected = [[(h.tokens.tolist(), h.score) for h in hypotheses]
                for hypotheses in translate(sources)]
    for rows in (1, 7, 20):
        again = translate(sources, max_rows=rows)
        for mine, hypotheses in zip(again, expected):
            assert [h.tokens.tolist() for h in mine] == [tokens for tokens, _ in hypotheses]
            for h, (_, score) in zip(mine, hypotheses):
                assert abs(h.score - score) < 1e-5
    if not sampling:
        for source, hypotheses in zip(sources, expected):
            (alone,) = translate([source])
            assert [h.tokens.tolist() for h in alone] == [tokens for tokens, _ in hypotheses]


def test_batches_give_what_fairseqs_batches_give():
    """Padded left, all together, where no limit depends on the batch."""
    model = strong_model(4)
    sources = random_sources(8)
    generator = SequenceGenerator([model], model.decoder.dictionary, beam_size=4, max_len_b=25)
    sample = {"net_input": {"src_tokens": batch(sources, left=True),
                            "src_lengths": torch.tensor([len(s) for s in sources])}}
    ours = Engine(read_model(model)).translate(
        sources, GenerationOptions(beam=4, nbest=4, max_len_b=25))
    for mine, theirs in zip(ours, generator.generate([model], sample)):
        same(mine, theirs)


def test_slots_are_given_out_again():
    """Hundreds of tokens, of which hypotheses share all but the last few."""
    model = strong_model(5)
    compare(model, random_sources(2), beam=5, min_len=300, max_len_b=320)


@pytest.mark.parametrize("context", [None, 0, 4])
@pytest.mark.parametrize("prompt", [0, 5])
def test_language_models(prompt, context):
    class Task:
        target_dictionary = build().decoder.dictionary

    torch.manual_seed(6)
    cfg = SRUppLMConfig(embed_dim=12, hidden_size=24, proj_size=8, layers=3, alpha_init=1.0,
                        attention="every:2", generation_context=context)
    model = SRUppLanguageModel.build_model(cfg, Task).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    prompts = [torch.randint(4, 25, (prompt,)) for _ in range(3)]
    ours = Engine(read_model(model)).generate(
        prompts, GenerationOptions(beam=3, nbest=3, max_len_b=20))
    generator = SequenceGenerator([model], Task.target_dictionary, beam_size=3, max_len_b=20)
    for mine, text in zip(ours, prompts):
        sample = {"net_input": {"src_tokens": torch.tensor([[EOS]]),
                                "src_lengths": torch.tensor([1])}}
        prefix = {"prefix_tokens": text[None]} if prompt else {}
        same(mine, generator.generate([model], sample, **prefix)[0])


def first_tokens(engine, count=4000, **options):
    found = engine.translate(
        [torch.tensor([7, EOS])] * (count // 8),
        GenerationOptions(beam=8, nbest=8, sampling=True, max_len_b=1, min_len=0, **options))
    return Counter(h.tokens[0].item() for hypotheses in found for h in hypotheses)


@pytest.mark.parametrize("options", [
    dict(), dict(sampling_topk=4), dict(sampling_topp=0.6), dict(temperature=1.5)])
def test_samples_have_the_models_distribution(options):
    model = strong_model(7)
    temperature = options.get("temperature", 1.0)
    source = torch.tensor([[7, EOS]])
    scores = model(source, None, torch.tensor([[EOS]]))[0][0, 0] / temperature
    probabilities = scores.softmax(0)
    probabilities[1] = 0
    best = probabilities.sort(descending=True)
    if "sampling_topk" in options:
        probabilities[best.indices[4:]] = 0
    if "sampling_topp" in options:
        kept = int((best.values.cumsum(0) < 0.6).sum()) + 1
        probabilities[best.indices[kept:]] = 0
    probabilities = (probabilities / probabilities.sum()).tolist()
    counts = first_tokens(Engine(read_model(model)), **options)
    total = sum(counts.values())
    assert total == 4000
    for token, p in enumerate(probabilities):
        assert abs(counts[token] - total * p) <= 5 * (total * p * (1 - p)) ** 0.5 + 1e-9


def test_each_step_draws_anew():
    """Pairs of tokens, too, have the model's distribution."""
    model = strong_model(7)

    def probabilities(*before):
        scores = model(torch.tensor([[7, EOS]]), None, torch.tensor([[EOS, *before]]))[0][0, -1]
        scores[1] = -math.inf
        return scores.softmax(0).tolist()

    expected = {}
    for token, p in enumerate(probabilities()):
        if token == EOS:
            expected[(EOS,)] = p
        else:
            expected.update({(token, i): p * q for i, q in enumerate(probabilities(token))})
    found = Engine(read_model(model)).translate(
        [torch.tensor([7, EOS])] * 500,
        GenerationOptions(beam=8, nbest=8, sampling=True, max_len_b=2, min_len=0))
    counts = Counter(tuple(h.tokens[:2].tolist()) for hypotheses in found for h in hypotheses)
    assert sum(counts.values()) == 4000 and counts.keys() <= expected.keys()
    for pair, p in expected.items():
        assert abs(counts[pair] - 4000 * p) <= 5 * (4000 * p) ** 0.5 + 3


def test_seeds_decide_samples():
    engine = Engine(read_model(strong_model(8)))
    assert first_tokens(engine, 80, seed=3) == first_tokens(engine, 80, seed=3)
    assert first_tokens(engine, 80, seed=3) != first_tokens(engine, 80, seed=4)


def test_sample_scores_are_the_models():
    """Those of the tokens drawn, whatever else was allowed."""
    model = strong_model(9)
    (source,) = random_sources(1)
    found = Engine(read_model(model)).translate([source], GenerationOptions(
        beam=5, nbest=5, sampling=True, sampling_topk=5, max_len_b=12, unnormalized=True))[0]
    assert len(found) == 5
    for hypothesis in found:
        tokens = hypothesis.tokens
        previous = torch.cat([torch.tensor([EOS]), tokens[:-1]])
        scores = model(source[None], None, previous[None])[0][0].log_softmax(-1)
        expected = scores.gather(1, tokens[:, None])[:, 0]
        torch.testing.assert_close(hypothesis.token_scores, expected, rtol=0, atol=2e-5)
        assert abs(hypothesis.score - expected.sum().item()) < 1e-4


def test_threads_share_an_engine():
    """And Python's other threads run meanwhile."""
    engine = Engine(read_model(strong_model(10)))
    sources = random_sources(40, 12)
    expected = [h[0].tokens.tolist() for h in engine.translate(sources)]
    results = {}

    def translate(i):
        results[i] = [h[0].tokens.tolist() for h in engine.translate(sources)]

    threads = [threading.Thread(target=translate, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(results[i] == expected for i in range(4))


def test_nothing_to_do():
    assert Engine(read_model(strong_model())).translate([]) == []


@pytest.mark.parametrize("options", [
    dict(beam=0), dict(beam=24), dict(temperature=0.0), dict(min_len=30, max_len_b=10),
    dict(no_repeat_ngram_size=1), dict(sampling=True, sampling_topp=1.5), dict(bos=25),
    dict(sampling_topk=4), dict(sampling_topp=0.5)])
def test_impossible_options_are_refused(options):
    engine = Engine(read_model(strong_model()))
    with pytest.raises(ValueError, match="must be"):
        engine.translate(random_sources(1), GenerationOptions(**options))


def test_impossible_tokens_are_refused():
    engine = Engine(read_model(strong_model()))
    with pytest.raises(ValueError, match="prefix"):
        engine.translate(random_sources(1), prefixes=[torch.tensor([25])])
    for wrong in ([30, EOS], [-1, EOS], [3.0, EOS], [[3, EOS]], []):
        with pytest.raises(ValueError, match="source"):
            engine.translate([torch.tensor(wrong)])
    for wrong in ([-1], [25], [0.5]):
        with pytest.raises(ValueError, match="^prefixes must be token numbers"):
            engine.translate(random_sources(1), prefixes=[torch.tensor(wrong)])
    for wrong in ([], [torch.tensor([5])] * 2):
        with pytest.raises(ValueError, match="^prefixes must be one for each of the 1 sources"):
            engine.translate(random_sources(1), prefixes=wrong)
    with pytest.raises(ValueError, match="use translate"):
        engine.generate([torch.tensor([5])])
