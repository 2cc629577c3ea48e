"""How the two parties work together. Importing this package registers every strategy it holds."""

from cosilo.strategies.downward import (
    distil_across,
    distil_labels,
    distil_logits,
    distil_states,
    fusegen,
    narrow_labels,
    paraphrase,
    private_evolution,
    progen,
    step_by_step,
    zerogen,
)
from cosilo.strategies.inference import (
    automix,
    cascade,
    decompose,
    ends,
    ensemble,
    fusion,
    infer_dp,
    proxy,
    router,
    split,
)
from cosilo.strategies.upward import supericl

__all__ = [
    "automix",
    "cascade",
    "decompose",
    "distil_across",
    "distil_labels",
    "distil_logits",
    "distil_states",
    "ends",
    "ensemble",
    "fusegen",
    "fusion",
    "infer_dp",
    "narrow_labels",
    "paraphrase",
    "private_evolution",
    "progen",
    "proxy",
    "router",
    "split",
    "step_by_step",
    "supericl",
    "zerogen",
]
