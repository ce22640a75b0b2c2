"""fairseq's --replace-unk: an unknown word of a translation becomes the source word that it is
aligned to, or what a file says of that."""

from __future__ import annotations

import os
from typing import Any

from fairseq import options, utils

from fairseq_sru.errors import UsageError
from fairseq_sru.repairs.patching import replace


def apply() -> None:
    """Look alignments up as fairseq returns them, and say what the option needs."""

    @replace(options, "parse_args_and_arch")
    def parse_args_and_arch(original, parser, input_args=None, parse_known=False, *args, **kwargs):
        parsed = original(parser, input_args, parse_known, *args, **kwargs)
        _check(parsed[0] if parse_known else parsed)
        return parsed

    @replace(utils, "replace_unk")
    def replace_unk(original, hypo_str, src_str, alignment, align_dict, unk):
        places = {target: source for source, target in alignment}
        by_target = [places.get(n, -1) for n in range(len(hypo_str.split()))]  # -1: the end
        return original(hypo_str, src_str, by_target, align_dict, unk)


def _check(args: Any) -> None:
    path = getattr(args, "replace_unk", None)
    if path is None:
        return
    if path == "@@ ":  # what fairseq takes the option without a file for
        args.replace_unk = path = ""
    if path and not os.path.isfile(path):
        raise UsageError(f"--replace-unk: there is no file {path}")
    if getattr(args, "print_alignment", None) != "hard":
        raise UsageError("--replace-unk needs --print-alignment, by which it finds source words")
    if getattr(args, "post_process", None) is not None:
        raise UsageError("--replace-unk takes words as the model has them: leave out "
                         "--post-process (--remove-bpe)")
    if getattr(args, "input", None) is None and args.dataset_impl != "raw":
        raise UsageError("--replace-unk needs the text itself: give --dataset-impl raw, to "
                         "fairseq-preprocess as well")
