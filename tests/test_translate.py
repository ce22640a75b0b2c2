"""Translating text: the commands, the class, the exported folder, and fairseq's own commands by the
engine."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from conftest import USER_DIR, fails_in_one_line, run_fairseq, run_python, train
from fairseq import checkpoint_utils
from fairseq.tasks import TASK_REGISTRY
from fairseq.tasks.language_modeling import LanguageModelingTask
from fairseq.tasks.translation import TranslationTask
from safetensors.torch import save_file
from test_translation import build

from fairseq_sru.checkpoints import fairseqs_kind
from fairseq_sru.errors import UsageError
from fairseq_sru.inference import PRECISIONS, ModelWeights, read_model
from fairseq_sru.inference.export import Package, load, save
from fairseq_sru.inference.from_fairseq import import_checkpoint
from fairseq_sru.inference.text import Words
from fairseq_sru.inference.translator import Translator
from fairseq_sru.inference.vocabulary import Vocabulary
from fairseq_sru.translate import main as translate_main

pytestmark = pytest.mark.command

LINES = [f"wort{i} wort{(7 * i) % 20} wort{(3 * i) % 20}" for i in range(40)]


def translate(*args, stdin=""):
    result = run_python("-m", "fairseq_sru.translate", *args, stdin=stdin)
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def model(trained):
    return trained / "checkpoint_best.pt"


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "model"
    result = run_python("-m", "fairseq_sru.export", model, folder, "--precision", "float32")
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.parametrize("kind", sorted({
    kind for kind in TASK_REGISTRY.values()
    if fairseqs_kind(object.__new__(kind)) not in (TranslationTask, LanguageModelingTask)
}, key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__)
def test_tasks_with_text_of_their_own_are_refused(kind, monkeypatch):
    """Such as language tokens, which would be neither given nor taken away."""
    monkeypatch.setattr(checkpoint_utils, "load_model_ensemble_and_task",
                        lambda *args, **kwargs: ([None], None, object.__new__(kind)))
    with pytest.raises(UsageError, match=f"is of a {kind.__name__}, .* fairseq-interactive"):
        import_checkpoint(Path("checkpoint.pt"))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_a_folder_translates_as_its_checkpoint_without_fairseq(model, precision, tmp_path):
    folder = tmp_path / "model"
    result = run_python("-m", "fairseq_sru.export", model, folder, "--precision", precision)
    assert result.returncode == 0, result.stderr
    text = "\n".join(LINES)
    expected = translate(model, "--precision", precision, stdin=text).stdout
    program = (f"import sys; sys.modules['fairseq'] = None; sys.argv[1:] = [{str(folder)!r}]; "
               "from fairseq_sru.translate import main; main()")
    result = run_python("-c", program, stdin=text)
    assert result.returncode == 0, result.stderr
    assert result.stdout == expected and expected.count("\n") == len(LINES)


def test_fairseq_generate_decodes_by_the_engine_and_gives_the_same(model, data):
    outputs = {}
    for engine in ("off", "float32"):
        result = run_fairseq(
            "generate", data, "--user-dir", USER_DIR, "--path", model, "--cpu", "--beam", "4",
            "--nbest", "3", "--max-len-b", "12", "--srupp-engine", engine)
        outputs[engine] = re.findall(r"^[HP]-.*$", result.stdout, re.M)
        said = "fairseq_sru's engine in float32" if engine != "off" else "--srupp-engine off"
        assert re.search(f"decoding by.*{said}", result.stdout + result.stderr)
    numbers = {k: [float(x) for line in v for x in re.findall(r"-?\d+\.\d+", line)]
               for k, v in outputs.items()}
    words = {k: [re.sub(r"-?\d+\.\d+", "", line) for line in v] for k, v in outputs.items()}
    assert words["off"] == words["float32"] and len(words["off"]) == 2 * 3 * 20
    assert numbers["off"] == pytest.approx(numbers["float32"], abs=2e-4)  # as printed


@pytest.mark.parametrize("options, reason", [
    (["--diversity-rate", "0.5"], "DiverseSiblingsSearch"),
    (["--retain-dropout"], "--retain-dropout"),
    (["--print-alignment"], "alignments"),
])
def test_what_the_engine_does_not_do_is_said(model, data, options, reason):
    result = run_fairseq("generate", data, "--user-dir", USER_DIR, "--path", model, "--cpu",
                         *options)
    assert re.search(f"decoding by fairseq's search: .*{reason}", result.stdout + result.stderr)


def test_an_ensemble_is_left_to_fairseq(model, data, trained):
    result = run_fairseq("generate", data, "--user-dir", USER_DIR, "--cpu", "--path",
                         f"{model}:{trained / 'checkpoint1.pt'}")
    assert "fairseq's search: an ensemble" in result.stdout + result.stderr


def test_interactive_takes_the_engine(model, data):
    result = run_fairseq("interactive", data, "--user-dir", USER_DIR, "--path", model, "--cpu",
                         stdin="wort3 wort4\n")
    assert "fairseq_sru's engine" in result.stdout + result.stderr
    assert re.search(r"^H-0\t", result.stdout, re.M)


def test_a_line_in_is_a_line_out_whatever_is_in_it(exported, tmp_path):
    """Lines end at a newline alone; order stays, for any number of threads."""
    odd = [b"", b"   ", b"wort1\x85wort2", "wort1\u0085\u2028wort2".encode(), b"wort3\x0b\x0cwort4",
           b"\xff\xfe wort5", b"wort6\r", b"\x00", b"wort7 " * 700, b"wort8\twort9"]
    lines = [*odd, *(line.encode() for line in LINES)] * 3
    (tmp_path / "in").write_bytes(b"\n".join(lines))  # without a newline at the end
    options = ["--input", tmp_path / "in", "--max-len-b", "8"]
    translate(exported, *options, "--output", tmp_path / "out")
    translate(exported, *options, "--output", tmp_path / "again", "--threads", "2")
    found = (tmp_path / "out").read_bytes()
    assert found == (tmp_path / "again").read_bytes()
    rows = found.split(b"\n")
    assert rows.pop() == b"" and len(rows) == len(lines)
    assert rows[0] == rows[1] == b"" and all(rows[len(odd) : len(odd) + 40])
    assert rows[: len(rows) // 3] * 3 == rows
    alone = Translator(exported).translate(LINES, max_len_b=8)
    assert [row.decode() for row in rows[len(odd) : len(odd) + 40]] == alone


def test_several_translations_with_scores(exported):
    out = translate(exported, "--nbest", "3", "--scores", stdin="wort1 wort2\n\n").stdout
    rows = [line.split("\t") for line in out.splitlines()]
    assert len(rows) == 6 and [row[1] for row in rows[3:]] == [""] * 3
    scores = [float(row[0]) for row in rows[:3]]
    assert scores == sorted(scores, reverse=True) and scores[0] < 0


def test_threads_share_a_translator(exported):
    translator = Translator(exported)
    expected = translator.translate(LINES)
    with ThreadPoolExecutor(4) as pool:
        results = pool.map(translator.translate, [LINES] * 8)
        assert all(result == expected for result in results)


def test_unknown_options_are_refused(exported):
    translator = Translator(exported)
    with pytest.raises(TypeError, match="beams"):
        translator.translate(LINES, beams=3)
    for wrong in (dict(beam=0), dict(nbest=9), dict(temperature=0.0), dict(lenpen=float("nan"))):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            translator.translate(LINES, **wrong)


@pytest.mark.parametrize("lines, error", [
    ("wort1 wort2", TypeError), (b"wort1", TypeError), ([1], TypeError), ([None], TypeError),
    ([b"wort1"], TypeError), (["wort1 \ud800"], ValueError),
])
def test_lines_are_text(exported, lines, error):
    translator = Translator(exported)
    for read in (translator.translate, translator.best, lambda x: list(translator.stream(x))):
        with pytest.raises(error, match="line"):
            read(lines)


def test_a_stream_refuses_options_before_it_reads(exported):
    translator = Translator(exported)
    for wrong in (dict(beam=-1), dict(beam=23), dict(threads=1.5), dict(threads=0), dict(bos=24)):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))} must be "):
            translator.stream(iter([]), **wrong)


def test_every_line_has_as_many_translations_as_wanted(exported):
    short = dict(beam=5, nbest=5, max_len_b=0, min_len=0)
    for best in Translator(exported).stream(LINES[:3], **short):
        assert [t.text for t in best] == [""] * 5
        assert best[0].score > best[1].score == -torch.inf


def test_scores_that_are_not_finite_are_said(model):
    package = import_checkpoint(model, "float32")
    for tensor in package.weights.tensors.values():
        tensor.fill_(torch.nan)
    with pytest.raises(UsageError, match="scores are not finite: 'wort1'"):
        Translator(package).translate(["wort1"])


def damage(exported, folder, name, change):
    for path in exported.iterdir():
        content = path.read_bytes()
        if path.name == name:
            content = change(content)
        if content is not None:
            (folder / path.name).write_bytes(content)


@pytest.mark.parametrize("name, change, message", [
    ("config.json", lambda b: None, "not an exported model"),
    *[(name, change, f"{name} is not the file that was exported")
      for name in ("config.json", "source.txt", "target.txt") for change in (
          lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\xff" + b[1:],
          lambda b: b + b"more\n", lambda b: b.replace(b"1", b"2", 1))],
    ("model.safetensors", lambda b: None, "model.safetensors"),
    ("model.safetensors", lambda b: b[:-9], "model.safetensors"),
    ("model.safetensors", lambda b: b"text", "model.safetensors"),
    ("target.txt", lambda b: None, "target.txt is missing"),
])
def test_a_damaged_folder_is_one_line(exported, tmp_path, name, change, message):
    damage(exported, tmp_path, name, change)
    with pytest.raises(UsageError, match=message):
        load(tmp_path)


def places(config, *above):
    """The keys to every value of a nested dictionary."""
    for name, value in config.items():
        yield *above, name
        if isinstance(value, dict):
            yield from places(value, *above, name)


def test_a_config_of_another_kind_is_one_line(exported, tmp_path):
    """Every value, in a folder whose files belong together: refused, or a model that runs."""
    config = load(exported).weights.config
    refused = 0
    for *above, name in places(config):
        for number, wrong in enumerate([None, "x", -1, 0, 3.5, [], {}, ...]):
            package = load(exported)
            part = package.weights.config
            for key in above:
                part = part[key]
            part[name] = wrong
            if wrong is ...:
                del part[name]
            folder = tmp_path / "-".join([*above, name, str(number)])
            save(package, folder)
            try:
                Translator(folder).translate(["wort1"], max_len_b=3)
            except UsageError as error:
                assert "\n" not in str(error)
                refused += 1
    assert refused > 150


def test_a_damaged_folder_ends_the_command_in_one_line(exported, tmp_path):
    damage(exported, tmp_path, "target.txt", lambda b: b[:-9])
    result = run_python("-m", "fairseq_sru.translate", tmp_path)
    assert "target.txt is not the file that was exported" in fails_in_one_line(result)


def test_a_folder_of_another_version_is_one_line(exported, tmp_path, monkeypatch):
    package = load(exported)
    with monkeypatch.context() as patched:
        patched.setattr("fairseq_sru.inference.export.FORMAT", 9)
        save(package, tmp_path / "newer")
    with pytest.raises(UsageError, match="has format 9, .* export the checkpoint anew"):
        load(tmp_path / "newer")
    damage(exported, tmp_path, "", None)
    save_file(package.weights.tensors, str(tmp_path / "model.safetensors"))  # as format 1
    with pytest.raises(UsageError, match="export the checkpoint anew"):
        load(tmp_path)


def test_mistakes_are_one_line_and_leave_no_file(exported, model, tmp_path, monkeypatch):
    monkeypatch.setattr("logging.disable", lambda level: None)  # the command's, of this process
    (tmp_path / "text").write_text("no checkpoint\n")
    (tmp_path / "in").write_text("wort1\n")
    out = tmp_path / "out"
    cases = [
        ([tmp_path / "missing"], "missing does not exist"),
        ([tmp_path / "text"], "not a checkpoint"),
        ([exported, "--input", tmp_path / "none"], "cannot read"),
        ([exported, "--output", tmp_path / "text" / "out"], "cannot write"),
        ([exported, "--beam", "0"], "beam"),
        ([exported, "--beam", "100000"], "beam must be at most 22"),
        ([exported, "--min-len", "300"], "--min-len must be at most the 200 tokens"),
        ([exported, "--min-len", "300", "--max-len-a", "1"], "min_len must be at most 202"),
        ([exported, "--threads", "0"], "--threads must be"),
        ([model, "--source-lang", "en"], "--bpe, --tokenizer"),
        ([model, "--bpe", "sentencepiece", "--sentencepiece-model", tmp_path / "none"], "none"),
        ([model, "--bpe", "sentencepiece", "--sentencepiece-model", tmp_path / "text"],
         "not a sentencepiece model"),
        ([model, "--data", tmp_path], "dict"),
    ]
    for args, message in cases:
        given = dict(zip(args[1::2], args[2::2]))
        options = {"--output": out, "--input": tmp_path / "in", **given}
        command = ["translate", args[0], *(x for option in options.items() for x in option)]
        monkeypatch.setattr("sys.argv", [*map(str, command)])
        with pytest.raises(UsageError) as caught:
            translate_main()
        assert message in str(caught.value) and "\n" not in str(caught.value)
        assert not out.exists() and not list(tmp_path.glob("*.part"))
    result = run_python("-m", "fairseq_sru.translate", exported, "--beam", "0")
    assert "--beam must be" in fails_in_one_line(result)
    result = run_python("-m", "fairseq_sru.export", model, tmp_path)
    assert "exists already" in fails_in_one_line(result)


@pytest.mark.parametrize("options, message", [
    (["--source-lang", "en"], "--bpe, --tokenizer"),
    (["--beam", "4"], "--bpe, --tokenizer"),
    (["--lm-weight", "0.5"], "--bpe, --tokenizer"),
    (["--bpe", "sentencepiece"], "--bpe sentencepiece needs --sentencepiece-model"),
    (["--bpe", "subword_nmt"], "--bpe subword_nmt needs --bpe-codes"),
    (["--bpe", "characters"], "Could not find 'bpe/characters'"),
])
def test_options_that_are_none_of_the_text(model, options, message):
    with pytest.raises(UsageError, match=message):
        import_checkpoint(model, text_options=options)


def test_a_tokenizer_knows_the_languages_of_the_model(model):
    for languages in ([], ["--source-lang", "de"]):
        text = import_checkpoint(model, text_options=["--tokenizer", "moses", *languages]).text
        assert text.encode("wort1, wort2") == "wort1 , wort2"


def test_a_sentencepiece_model_of_another_vocabulary_is_refused(model, tmp_path):
    import sentencepiece

    (tmp_path / "text").write_text("\n".join(f"etwas ganz anderes {i}" for i in range(200)))
    sentencepiece.SentencePieceTrainer.Train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "m"), vocab_size=40,
        minloglevel=2)
    result = run_python("-m", "fairseq_sru.translate", model, "--bpe", "sentencepiece",
                        "--sentencepiece-model", tmp_path / "m.model", stdin="wort1\n")
    assert "of another vocabulary" in fails_in_one_line(result)


def test_pieces_need_their_model(data, tmp_path):
    """A dictionary of pieces, and nothing says how to cut text."""
    text = tmp_path / "text"
    for language in ("de", "en"):
        (tmp_path / f"train.{language}").write_text("▁a b ▁c d\n▁e f ▁g\n" * 8)
    run_fairseq("preprocess", "-s", "de", "-t", "en", "--trainpref", tmp_path / "train",
                "--validpref", tmp_path / "train", "--destdir", text)
    train(text, tmp_path, "--max-update", "1")
    result = run_python("-m", "fairseq_sru.translate", tmp_path / "checkpoint_last.pt")
    assert "give --bpe sentencepiece --sentencepiece-model" in fails_in_one_line(result)


def test_a_language_model_does_not_translate():
    package = Package(ModelWeights({}, {}), None, Vocabulary(["a"], 1, 3, 2), Words())
    with pytest.raises(UsageError, match="language model"):
        Translator(package)


def test_what_a_model_holds_does_not_depend_on_tying(exported):
    tensors = load(exported).weights.tensors
    assert all(t.dtype == torch.float32 for t in tensors.values())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_shared_embedding_is_written(precision, tmp_path):
    model = build(target=None, share_all_embeddings=True).float()
    dictionary = model.decoder.dictionary
    words = Vocabulary(dictionary.symbols, pad=1, unk=3, eos=2)
    weights = read_model(model, precision)
    save(Package(weights, words, words, Words()), tmp_path / "model")
    read = load(tmp_path / "model")
    assert read.weights.config == weights.config and read.source.tokens == dictionary.symbols
    assert read.weights.tensors.keys() == weights.tensors.keys()
    assert all(torch.equal(read.weights.tensors[k], t) for k, t in weights.tensors.items())
