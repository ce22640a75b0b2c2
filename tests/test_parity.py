"""What fairseq's commands do with its own Transformer they do with ours: rows of docs/parity.md.

Everything runs in this process, on models of a few thousand parameters.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from conftest import ROOT, USER_DIR, run_fairseq
from fairseq import distributed_utils, hub_utils, options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.logging import progress_bar
from fairseq_cli import eval_lm as fairseq_eval_lm
from fairseq_cli import generate as fairseq_generate
from fairseq_cli import interactive as fairseq_interactive
from fairseq_cli import score as fairseq_score
from fairseq_cli import train as fairseq_train
from fairseq_cli import validate as fairseq_validate

import fairseq_sru
from fairseq_sru.average_checkpoints import average

fairseq_sru.register()

SIZES = [word for side in ("encoder", "decoder") for word in (
    f"--{side}-layers", "1", f"--{side}-embed-dim", "16", f"--{side}-ffn-embed-dim", "16",
    f"--{side}-attention-heads", "2")]
MODELS = {
    "transformer": ["--arch", "transformer", *SIZES],
    "transformer_sru": ["--arch", "transformer_sru_tiny"],
    "srupp": ["--arch", "srupp_tiny"],
}
LANGUAGE_MODELS = {
    "transformer_lm": ["--arch", "transformer_lm", "--decoder-layers", "1",
                       "--decoder-embed-dim", "16", "--decoder-ffn-embed-dim", "16",
                       "--decoder-attention-heads", "2"],
    "sru_lm": ["--arch", "sru_lm_tiny"],
    "srupp_lm": ["--arch", "srupp_lm_tiny"],
}
TRAIN = ["--user-dir", USER_DIR, "--optimizer", "adam", "--lr", "0.02", "--max-tokens", "512",
         "--num-workers", "0", "--cpu", "--dropout", "0.1", "--log-format", "json"]


def run_train(data: Path, folder: Path, *args: object) -> dict:
    """fairseq-train; its last checkpoint."""
    command = [data, *TRAIN, "--save-dir", folder, *args]
    parsed = options.parse_args_and_arch(options.get_training_parser(), [*map(str, command)])
    distributed_utils.call_main(convert_namespace_to_omegaconf(parsed), fairseq_train.main)
    return torch.load(folder / "checkpoint_last.pt", weights_only=True)


def arguments(parser, *args: object):
    common = ["--user-dir", USER_DIR, "--cpu", "--num-workers", "0"]
    return options.parse_args_and_arch(parser, [*map(str, (*args, *common))])


def parse(output: str) -> dict[int, dict[str, list[list[str]]]]:
    found: dict = {}
    for line in output.splitlines():
        match = re.match(r"([A-Z])-(\d+)\t(.*)", line)
        if match:
            letter, number, rest = match.groups()
            found.setdefault(int(number), {}).setdefault(letter, []).append(rest.split("\t"))
    return found


def run_generate(data: Path, path: object, folder: Path, *args: object):
    """fairseq-generate: {sentence: {letter: [fields, ...]}}, all sentences of the test set."""
    command = (data, "--path", path, "--results-path", folder, "--max-len-b", "12", *args)
    fairseq_generate.main(arguments(options.get_generation_parser(), *command))
    found = parse((folder / "generate-test.txt").read_text())
    assert sorted(found) == list(range(20))
    return found


def texts(found) -> dict[int, list[str]]:
    return {number: [text for _, text in lines["H"]] for number, lines in found.items()}


@pytest.fixture(scope="module", params=MODELS)
def model(request) -> list[str]:
    return MODELS[request.param]


@pytest.fixture(scope="module")
def folder(model, data, tmp_path_factory) -> Path:
    """Checkpoints of two epochs."""
    folder = tmp_path_factory.mktemp("model")
    run_train(data, folder, *model, "--max-epoch", "2")
    return folder


@pytest.fixture(scope="module")
def translate(data, folder, tmp_path_factory):
    """fairseq-generate with the model and the options that a test adds."""
    def run(*args: object):
        path = folder / "checkpoint_last.pt"
        return run_generate(data, path, tmp_path_factory.mktemp("out"), *args)

    return run


@pytest.fixture(scope="module", params=LANGUAGE_MODELS)
def language_model(request, lm_data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("language_model")
    run_train(lm_data, folder, "--task", "language_modeling", "--tokens-per-sample", "16",
              "--sample-break-mode", "eos", *LANGUAGE_MODELS[request.param], "--max-epoch", "2")
    return folder / "checkpoint_last.pt"


# training


def test_training_learns(folder):
    losses = [torch.load(folder / f"checkpoint{n}.pt", weights_only=True)["extra_state"]["val_loss"]
              for n in (1, 2)]
    assert losses[1] < losses[0]


def test_resuming(data, folder, model, tmp_path):
    straight = run_train(data, tmp_path / "straight", *model, "--max-epoch", "3")
    resumed = run_train(data, tmp_path / "resumed", *model, "--max-epoch", "3",
                        "--restore-file", folder / "checkpoint2.pt")
    assert resumed["model"].keys() == straight["model"].keys()
    for name, value in straight["model"].items():
        torch.testing.assert_close(resumed["model"][name], value, rtol=0, atol=0)


def test_moving_averages(data, model, tmp_path):
    state = run_train(data, tmp_path, *model, "--max-update", "3", "--store-ema",
                      "--ema-decay", "0.5", "--ema-fp32")
    averages = state["extra_state"]["ema_fp32_params"]
    moved = [not torch.equal(value, state["model"][name]) for name, value in averages.items()]
    assert any(moved) and all(value.isfinite().all() for value in averages.values())


def test_fine_tuning(data, folder, model, tmp_path):
    """It starts with the parameters and with nothing else of the run."""
    state = run_train(data, tmp_path, *model, "--max-update", "1", "--lr", "1e-9",
                      "--finetune-from-model", folder / "checkpoint_last.pt")
    before = torch.load(folder / "checkpoint_last.pt", weights_only=True)["model"]
    assert state["optimizer_history"][-1]["num_updates"] == 1
    for name, value in before.items():
        torch.testing.assert_close(state["model"][name], value, rtol=0, atol=1e-6)


def test_many_languages(data, model, tmp_path):
    languages = ["--task", "translation_multi_simple_epoch", "--langs", "de,en", "--lang-pairs",
                 "de-en", "--encoder-langtok", "tgt", "--decoder-langtok"]
    run_train(data, tmp_path, *model, *languages, "--max-update", "2")
    found = run_generate(data, tmp_path / "checkpoint_last.pt", tmp_path, *languages, "-s", "de",
                         "-t", "en", "--beam", "2")
    assert len(found) == 20 and not any("__" in text for (_, text), in (
        sentence["H"] for sentence in found.values()))


def test_bleu_in_validation(data, model, tmp_path):
    state = run_train(data, tmp_path, *model, "--max-update", "2", "--eval-bleu",
                      "--eval-bleu-args", '{"beam": 2, "max_len_b": 12}',
                      "--best-checkpoint-metric", "bleu", "--maximize-best-checkpoint-metric")
    assert 0 <= state["extra_state"]["val_loss"] <= 100


@pytest.mark.parametrize("extra", [
    ("--update-freq", "2"),
    ("--clip-norm", "0.1", "--lr-scheduler", "inverse_sqrt", "--warmup-updates", "2"),
    ("--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1"),
    ("--share-all-embeddings",),
    ("--num-batch-buckets", "2"),
    ("--bf16",),
], ids=lambda extra: extra[0][2:])
def test_training_options(data, model, tmp_path, extra):
    if extra == ("--share-all-embeddings",):
        data = _joined(data, tmp_path)
    state = run_train(data, tmp_path / "run", *model, "--max-update", "2", *extra)
    assert state["optimizer_history"][-1]["num_updates"] == 2


def _joined(data: Path, folder: Path) -> Path:
    """The corpus with the source's dictionary on both sides: ids stay what they are."""
    joined = folder / "joined"
    joined.mkdir()
    for path in data.iterdir():
        (joined / path.name).write_bytes(path.read_bytes())
    (joined / "dict.en.txt").write_bytes((data / "dict.de.txt").read_bytes())
    return joined


def test_tensorboard(data, model, tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder):
            self.folder = folder

        def __getattr__(self, name):
            return lambda *values: written.append((self.folder, name, values))

    monkeypatch.setattr(progress_bar, "SummaryWriter", Writer)
    monkeypatch.setattr(progress_bar, "_tensorboard_writers", {})
    run_train(data, tmp_path / "run", *model, "--max-update", "2", "--log-interval", "1",
              "--tensorboard-logdir", tmp_path / "board")
    assert {"loss", "wps"} <= {values[0] for _, name, values in written if name == "add_scalar"}
    assert any("valid" in folder for folder, *_ in written)


def test_weights_and_biases(data, model, tmp_path, monkeypatch):
    logged = []

    class Wandb:
        config = type("Config", (), {"update": staticmethod(lambda *args, **kwargs: None)})

        @staticmethod
        def init(project, **options):
            logged.append({"project": project})

        @staticmethod
        def log(values, step):
            logged.append(values)

    monkeypatch.setattr(progress_bar, "wandb", Wandb)
    run_train(data, tmp_path, *model, "--max-update", "2", "--log-interval", "1",
              "--wandb-project", "ours")
    assert logged[0] == {"project": "ours"}
    assert any("valid/loss" in values for values in logged)


# translating


def test_beams_and_n_best(translate):
    for lines in translate("--beam", "4", "--nbest", "3").values():
        scores = [float(score) for score, _ in lines["H"]]
        assert len(scores) == 3 and scores == sorted(scores, reverse=True)


def test_batches_change_nothing(translate):
    assert texts(translate("--beam", "3", "--batch-size", "1")) == texts(translate("--beam", "3"))


def test_lengths(translate):
    for lines in translate("--beam", "2", "--min-len", "5", "--max-len-b", "7").values():
        assert all(5 <= len(text.split()) <= 7 for _, text in lines["H"])


def test_lengths_of_the_source(translate):
    """No translation is longer than the source with its end."""
    for lines in translate("--beam", "2", "--batch-size", "1", "--match-source-len").values():
        assert len(lines["H"][0][1].split()) <= len(lines["S"][0][0].split()) + 1


def test_no_n_gram_twice(translate):
    for lines in translate("--beam", "2", "--no-repeat-ngram-size", "2", "--min-len", "8").values():
        words = lines["H"][0][1].split()
        pairs = list(zip(words, words[1:]))
        assert len(set(pairs)) == len(pairs) >= 7


def test_prefixes(translate):
    for lines in translate("--prefix-size", "2").values():
        assert lines["H"][0][1].split()[:2] == lines["T"][0][0].split()[:2]


@pytest.mark.parametrize("kind", [
    (), ("--sampling-topk", "3"), ("--sampling-topp", "0.8"), ("--temperature", "2"),
], ids=lambda kind: kind[0][2:] if kind else "plain")
def test_sampling(translate, kind):
    one, two, again = (
        texts(translate("--sampling", *kind, "--beam", "1", "--seed", seed)) for seed in (1, 2, 1))
    assert one == again != two


@pytest.mark.parametrize("kind", [
    ("--diverse-beam-groups", "2", "--diverse-beam-strength", "5"), ("--diversity-rate", "5"),
], ids=["groups", "siblings"])
def test_diverse_beams(translate, kind):
    wide = ("--beam", "4", "--nbest", "4", "--min-len", "3")
    plain, diverse = texts(translate(*wide)), texts(translate(*wide, *kind))
    assert all(len(found) == 4 for found in diverse.values()) and plain != diverse


def test_unknown_words(translate):
    penalised, wanted = (
        sum(text.split().count("<unk>") for found in texts(translate("--unkpen", penalty)).values()
            for text in found)
        for penalty in (50, -50))
    assert penalised == 0 < wanted


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_alignments(translate, kind):
    for lines in translate("--print-alignment", kind, "--beam", "2").values():
        (((cells),),) = lines["A"]
        assert ("-" if kind == "hard" else ",") in cells


@pytest.mark.parametrize("words", ["", "wort3 drei\n"])
def test_unknown_words_are_replaced(data, corpus, folder, tmp_path, words):
    """By the source words that they are aligned to, or by what stands for those in a file."""
    raw = tmp_path / "raw"
    run_fairseq(
        "preprocess", "-s", "de", "-t", "en", "--testpref", corpus / "test", "--destdir", raw,
        "--srcdict", data / "dict.de.txt", "--tgtdict", data / "dict.en.txt",
        "--dataset-impl", "raw")
    table = tmp_path / "table"
    table.write_text(words)
    path, found = folder / "checkpoint_last.pt", {}
    for name, option in (("none", ()), ("words", ("--replace-unk", *[table] * bool(words)))):
        found[name] = run_generate(
            raw, path, tmp_path / name, "--dataset-impl", "raw", "--unkpen", "-50",
            "--print-alignment", "hard", *option)
    for before, after in zip(*(lines.values() for lines in found.values())):
        source = before["S"][0][0].split() + ["<eos>"]
        pairs = [map(int, pair.split("-")) for pair in before["A"][0][0].split()]
        aligned = {target: source[place] for place, target in pairs}
        expected = [
            {"wort3": "drei"}.get(aligned[n], aligned[n]) if words and word == "<unk>"
            else aligned[n] if word == "<unk>" else word
            for n, word in enumerate(before["H"][0][1].split())]
        assert "<unk>" in before["H"][0][1] and after["H"][0][1].split() == expected


def test_references_are_scored(translate):
    for lines in translate("--score-reference").values():
        assert lines["H"][0][1] == lines["T"][0][0] and float(lines["H"][0][0]) < 0


def test_dropout_at_test_time(translate):
    one, two, again = ([lines["H"][0][0] for lines in translate(
        "--retain-dropout", "--beam", "2", "--seed", seed).values()] for seed in (1, 2, 1))
    assert one == again != two


def test_an_ensemble_with_a_transformer(data, folder, tmp_path):
    other = tmp_path / "transformer"
    run_train(data, other, *MODELS["transformer"], "--max-epoch", "1", "--seed", "2")
    both = f"{folder / 'checkpoint_last.pt'}:{other / 'checkpoint_last.pt'}"
    assert run_generate(data, both, tmp_path / "both", "--beam", "2")


def test_shallow_fusion(data, folder, tmp_path):
    """A language model of the target side, which has the dictionary of the translation."""
    both = tmp_path / "both"
    both.mkdir()
    for path in data.iterdir():
        (both / path.name).write_bytes(path.read_bytes())
        split, *rest = path.name.split(".")
        if rest[:2] == ["de-en", "en"]:
            (both / f"{split}.{rest[2]}").write_bytes(path.read_bytes())
    (both / "dict.txt").write_bytes((data / "dict.en.txt").read_bytes())
    run_train(both, tmp_path / "lm", "--task", "language_modeling", "--tokens-per-sample", "16",
              "--sample-break-mode", "eos", *LANGUAGE_MODELS["srupp_lm"], "--max-epoch", "1")
    path, fusion = folder / "checkpoint_last.pt", tmp_path / "lm" / "checkpoint_last.pt"
    plain = run_generate(both, path, tmp_path / "plain", "--beam", "2")
    fused = run_generate(both, path, tmp_path / "fused", "--beam", "2", "--lm-path", fusion,
                         "--lm-weight", "0.9")
    assert [n for n in plain if plain[n]["H"] != fused[n]["H"]]


def interactive(data: Path, folder: Path, text: str, tmp_path: Path, capsys, *args: object):
    (tmp_path / "input").write_text(text)
    command = (data, "--path", folder / "checkpoint_last.pt", "--input", tmp_path / "input",
               "-s", "de", "-t", "en", "--max-len-b", "12", "--beam", "2", *args)
    capsys.readouterr()
    fairseq_interactive.main(arguments(
        options.get_interactive_generation_parser(), *command))
    return parse(capsys.readouterr().out)


def test_interactive(data, corpus, folder, translate, tmp_path, capsys):
    said = interactive(data, folder, (corpus / "test.de").read_text(), tmp_path, capsys,
                       "--buffer-size", "7", "--batch-size", "3")
    assert texts(said) == texts(translate("--beam", "2"))


@pytest.mark.parametrize("kind", ["ordered", "unordered"])
def test_constraints(data, folder, tmp_path, capsys, kind):
    text = "wort1 wort2 wort3\tword7 word8\nwort4\tword5\n"
    said = interactive(data, folder, text, tmp_path, capsys, "--constraints", kind,
                       "--batch-size", "2", "--buffer-size", "2", "--max-len-b", "8")
    assert {"word7", "word8"} <= set(said[0]["H"][0][1].split())
    assert "word5" in said[1]["H"][0][1].split()


def test_back_translation(data, folder, tmp_path):
    """Of a side alone, by noisy samples."""
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("dict.de.txt", "dict.en.txt"):
        (alone / name).write_bytes((data / name).read_bytes())
    for kind in ("bin", "idx"):
        (alone / f"test.de-en.de.{kind}").write_bytes(
            (data / f"test.de-en.de.{kind}").read_bytes())
    found = run_generate(alone, folder / "checkpoint_last.pt", tmp_path / "out", "--sampling",
                         "--beam", "1", "-s", "de", "-t", "en")
    assert all("H" in lines and "T" not in lines for lines in found.values())


# everything else


def test_validate(data, folder, monkeypatch):
    said = []
    monkeypatch.setattr(progress_bar.SimpleProgressBar, "print",
                        lambda self, stats, tag=None, step=None: said.append(stats))
    fairseq_validate.main(arguments(
        options.get_validation_parser(), data, "--path", folder / "checkpoint_last.pt",
        "--max-tokens", "512", "--task", "translation", "--log-format", "simple"))
    saved = torch.load(folder / "checkpoint_last.pt", weights_only=True)["extra_state"]
    assert [stats["loss"] for stats in said] == [pytest.approx(saved["val_loss"], abs=2e-3)]


def test_score(translate, tmp_path, capsys, monkeypatch):
    found = translate("--beam", "2")
    for name, letter, field in ("system", "H", 1), ("reference", "T", 0):
        (tmp_path / name).write_text(
            "".join(lines[letter][0][field] + "\n" for lines in found.values()))
    monkeypatch.setattr("sys.argv", ["score", "--sys", str(tmp_path / "system"), "--ref",
                                     str(tmp_path / "reference")])
    fairseq_score.cli_main()
    assert "BLEU4 = " in capsys.readouterr().out


def test_averages(folder, tmp_path):
    state = average([folder / "checkpoint1.pt", folder / "checkpoint2.pt"])
    one, two = (torch.load(folder / f"checkpoint{n}.pt", weights_only=True)["model"]
                for n in (1, 2))
    for name, value in state["model"].items():
        torch.testing.assert_close(value, (one[name] + two[name]) / 2)


def test_hub(data, folder):
    loaded = hub_utils.from_pretrained(
        str(folder), "checkpoint_last.pt", str(data), source_lang="de", target_lang="en")
    hub = hub_utils.GeneratorHubInterface(loaded["args"], loaded["task"], loaded["models"])
    one, other = hub.translate(["wort1 wort2", "wort3"], beam=2, max_len_b=8)
    assert one and other
    assert len(hub.sample(["wort1"], beam=1, sampling=True, max_len_b=8)) == 1


# language models


def test_eval_lm(lm_data, language_model, capsys, caplog):
    caplog.set_level("INFO")
    fairseq_eval_lm.main(convert_namespace_to_omegaconf(arguments(
        options.get_eval_lm_parser(), lm_data, "--path", language_model, "--gen-subset", "test",
        "--sample-break-mode", "eos", "--max-tokens", "512", "--output-word-probs",
        "--output-word-stats")))
    assert "Perplexity" in caplog.text
    probabilities = re.findall(r"\bw\d+ \[-?\d+\.\d+\]", caplog.text)
    assert len(probabilities) > 20


def test_a_language_model_goes_on_with_a_text(lm_data, language_model, tmp_path, capsys):
    (tmp_path / "input").write_text("w1 w4 w7\n")
    fairseq_interactive.main(arguments(
        options.get_interactive_generation_parser(), lm_data, "--path", language_model, "--task",
        "language_modeling", "--input", tmp_path / "input", "--beam", "2", "--max-len-b", "8"))
    found = parse(capsys.readouterr().out)
    assert found[0]["H"][0][1].startswith("w1 w4 w7")


# the table


def test_every_row_of_the_table_names_a_test():
    text = (ROOT / "docs" / "parity.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "test" in line][1:]
    named = [re.findall(r"`(\w+)\.(test_\w+)`", row.split("|")[-2]) for row in rows]
    assert len(rows) >= 40 and all(named)
    for file, test in (pair for row in named for pair in row):
        source = (ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8")
        assert re.search(rf"^def {test}\(", source, re.M), (file, test)


def test_every_test_is_in_the_table():
    text = (ROOT / "docs" / "parity.md").read_text(encoding="utf-8")
    tests = re.findall(r"^def (test_\w+)\(", Path(__file__).read_text(encoding="utf-8"), re.M)
    missing = [name for name in tests if f"`test_parity.{name}`" not in text]
    assert missing == ["test_every_row_of_the_table_names_a_test",
                       "test_every_test_is_in_the_table"]
