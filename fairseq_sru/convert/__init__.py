"""State dicts and checkpoints of the reference implementation, in and out.

    stack = build_stack("SRUpp", dict(input_size=512, hidden_size=512, proj_size=128))
    load_stack(stack, torch.load("reference.pt", weights_only=True))
    torch.save(export_stack(stack), "reference-again.pt")  # the same bits

``python -m fairseq_sru.convert --help`` converts whole language models.
"""

from fairseq_sru.convert.layout import ConversionError, export_stack, load_stack
from fairseq_sru.convert.options import build_stack

__all__ = ["ConversionError", "build_stack", "export_stack", "load_stack"]
