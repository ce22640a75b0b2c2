"""Which kernels run the recurrence on which device."""

import pytest
import torch

from fairseq_sru.ops import backend


@pytest.fixture(autouse=True)
def forgetful():
    """Warnings that were given once are given again."""
    backend.warn_no_gpu_kernel.cache_clear()


def without_cuda(monkeypatch, triton: bool) -> None:
    monkeypatch.setattr(backend, "HAS_CUDA", False)
    monkeypatch.setattr(backend, "HAS_TRITON", triton)


def test_a_gpu_has_the_extensions_kernels(monkeypatch, recwarn):
    monkeypatch.setattr(backend, "HAS_CUDA", True)
    assert backend.operators("cuda") is torch.ops.fairseq_sru
    assert backend.described("cuda") == "compiled" and not recwarn.list


def test_without_them_it_has_tritons(monkeypatch, recwarn):
    without_cuda(monkeypatch, triton=True)
    assert backend.operators("cuda") is torch.ops.fairseq_sru_triton
    assert backend.described("cuda").startswith("Triton: fairseq_sru_ext ") and not recwarn.list


def test_without_either_one_warning_names_the_remedies(monkeypatch):
    without_cuda(monkeypatch, triton=False)
    with pytest.warns(UserWarning) as caught:
        assert backend.operators("cuda") is None
        assert backend.operators("cuda") is None
    (message,) = (str(warning.message) for warning in caught)
    assert "slow Python loop" in message and "brings Triton" in message and "nvcc" in message
    assert backend.described("cuda").startswith("Python loop: fairseq_sru_ext ")


def test_another_device_is_an_error_in_a_line():
    with pytest.raises(NotImplementedError, match="^the recurrence does not run on mps: use .*$"):
        backend.operators("mps")
