"""Importing the modules changes nothing elsewhere; --user-dir brings the plugin, however late."""

import pytest
from conftest import USER_DIR, run_python

pytestmark = pytest.mark.command

LOOK = """
import sys, types, warnings
import numpy, torch
from fairseq import checkpoint_utils, data, file_io, models, optim, options, tasks, trainer
from fairseq.data import data_utils, encoders
from fairseq.logging import metrics
from omegaconf import OmegaConf

def look():
    # every function and class attribute of fairseq, numpy.compat, and what Python and PyTorch
    # themselves may be told
    seen = {}
    for name, module in sorted(sys.modules.items()):
        if name.split(".")[0] in ("fairseq", "fairseq_cli", "sacrebleu"):
            for attribute, value in vars(module).items():
                seen[name, attribute] = id(value)
                if isinstance(value, type):
                    seen.update({(name, attribute, key): id(v) for key, v in vars(value).items()
                                 if isinstance(v, types.FunctionType)})
    seen["registries"] = [sorted(r) for r in (
        models.MODEL_REGISTRY, models.ARCH_MODEL_REGISTRY, tasks.TASK_REGISTRY,
        optim.OPTIMIZER_REGISTRY, encoders.BPE_REGISTRY)]
    seen["numpy"] = sorted(vars(numpy))
    seen["hook"] = id(sys.excepthook)
    # PyTorch's own modules add to these two as well
    seen["filters"] = [str(f[1]) for f in warnings.filters if "hydra" in str(f[1])]
    seen["safe"] = sorted(str(kind) for kind in torch.serialization.get_safe_globals()
                          if "torch" not in str(kind))
    return seen
"""


def run(code: str) -> str:
    result = run_python("-c", LOOK + code)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("part", [
    "fairseq_sru", "fairseq_sru.ops", "fairseq_sru.modules", "fairseq_sru.state",
    "fairseq_sru.convert", "fairseq_sru.convert.recorded",
])
def test_importing_a_part_changes_nothing_in_fairseq(part):
    run(f"""
before = look()
import {part}
after = look()
assert before == after, [key for key in after if before.get(key) != after[key]]
""")


def test_the_look_notices_the_plugin():
    run("""
before = look()
import fairseq_sru
fairseq_sru.register()
after = look()
changed = {key for key in after if before.get(key) != after[key]}
assert {"registries", "hook", "filters", "safe"} <= changed, changed
assert ("fairseq.options", "parse_args_and_arch") in changed
""")


@pytest.mark.parametrize("before", ["", "import fairseq_sru.modules"])
def test_the_user_dir_registers_even_after_the_modules_were_imported(before):
    out = run(f"""
{before}
from fairseq import utils
utils.import_user_module(types.SimpleNamespace(user_dir={str(USER_DIR)!r}))
print("srupp" in models.MODEL_REGISTRY, "srupp_iwslt" in models.ARCH_MODEL_REGISTRY,
      "srupp_language_modeling" in tasks.TASK_REGISTRY, "radam" in optim.OPTIMIZER_REGISTRY,
      "srupp_bytes" in encoders.BPE_REGISTRY, hasattr(sys.excepthook, "_repairs"))
""")
    assert out.split() == ["True"] * 6
