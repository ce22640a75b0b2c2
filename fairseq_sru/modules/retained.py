"""Dropout that stays on in inference, where that is asked for."""

from __future__ import annotations

from typing import Any, Collection


class RetainedDropout:
    """Part of a module whose dropout is on in training and, once :meth:`make_generation_fast_` says
    so, in inference: Monte Carlo dropout (Gal and Ghahramani, 2016)."""

    training: bool
    retain_dropout = False

    @property
    def drops(self) -> bool:
        """Whether dropout is on."""
        return self.training or self.retain_dropout

    def make_generation_fast_(
        self,
        retain_dropout: bool = False,
        retain_dropout_modules: Collection[str] | None = None,
        **unused: Any,
    ) -> None:
        """Called by fairseq before generation, with --retain-dropout and --retain-dropout-modules.

        Args:
            retain_dropout_modules: names of the classes whose dropout stays on; None: all.
        """
        chosen = retain_dropout_modules is None or type(self).__name__ in retain_dropout_modules
        self.retain_dropout = retain_dropout and chosen
