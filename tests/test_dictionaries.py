"""Which dictionaries a checkpoint may meet, task by task."""

from types import SimpleNamespace

import pytest
from fairseq.data import Dictionary
from fairseq.tasks import TASK_REGISTRY
from fairseq.tasks.language_modeling import LanguageModelingConfig, LanguageModelingTask
from fairseq.tasks.multilingual_translation import MultilingualTranslationTask
from fairseq.tasks.sentence_prediction import SentencePredictionConfig, SentencePredictionTask
from fairseq.tasks.translation import TranslationConfig, TranslationTask

import fairseq_sru
from fairseq_sru.errors import UsageError
from fairseq_sru.repairs.checkpoints import ALLOW
from fairseq_sru.tasks.language_modeling import StreamLanguageModelingTask
from fairseq_sru.tasks.stream_config import StreamLanguageModelingConfig

fairseq_sru.register()


def words(*names):
    dictionary = Dictionary()
    for name in names:
        dictionary.add_symbol(name)
    return dictionary


def multilingual(source, target, third, training=False, pair=("de", "en")):
    args = SimpleNamespace(lang_pairs=["de-en", "de-fr"], source_lang=pair[0],
                           target_lang=pair[1])
    return MultilingualTranslationTask(args, {"de": source, "en": target, "fr": third}, training)


# a task made of three dictionaries, and how many of them it has
TASKS = {
    "translation": (lambda a, b, c: TranslationTask(TranslationConfig(), a, b), 2),
    "language_modeling": (lambda a, b, c: LanguageModelingTask(LanguageModelingConfig(), a), 1),
    "language_modeling, output": (
        lambda a, b, c: LanguageModelingTask(LanguageModelingConfig(), a, b), 2),
    "srupp_language_modeling": (
        lambda a, b, c: StreamLanguageModelingTask(StreamLanguageModelingConfig(), a), 1),
    "sentence_prediction": (
        lambda a, b, c: SentencePredictionTask(SentencePredictionConfig(), a, b), 2),
    "multilingual_translation": (multilingual, 3),
}


@pytest.mark.parametrize("name", TASKS)
def test_every_dictionary_of_a_known_task_is_guarded(name, monkeypatch):
    build, count = TASKS[name]
    own = [words("a", "b"), words("c", "d"), words("e", "f")]
    saved = build(*own).state_dict()
    build(*own).load_state_dict(saved)
    for place in range(count):
        others = [*own[:place], words("g", "h"), *own[place + 1 :]]
        with pytest.raises(UsageError, match=f"is not the one.*{ALLOW}=1"):
            build(*others).load_state_dict(saved)
    with monkeypatch.context() as patch:
        patch.setenv(ALLOW, "1")
        build(*others).load_state_dict(saved)


def test_a_multilingual_model_translates_between_any_two_of_its_languages():
    """In training this task calls the first dictionary its source and its target dictionary."""
    own = words("a", "b"), words("c", "d"), words("e", "f")
    saved = multilingual(*own, training=True).state_dict()
    for pair in ("de", "en"), ("de", "fr"), ("fr", "de"):
        multilingual(*own, pair=pair).load_state_dict(saved)


def test_tasks_that_nobody_knows_are_left_alone():
    """Of a task with dictionaries of its own we cannot say which belong to the model."""

    class Task(TASK_REGISTRY["translation"]):
        pass

    saved = Task(TranslationConfig(), words("a"), words("b")).state_dict()
    assert "dictionaries" not in saved
    Task(TranslationConfig(), words("c"), words("d")).load_state_dict(saved)
