"""Traversal learning as a protocol: nodes keep their rows, and the step equals the centralised one.

A :class:`Node` holds rows, an :class:`Orchestrator` trains. Both hold a :class:`SplitModel`, and a transport carries their messages:
:class:`Local` within a process, :mod:`proxycoop.traversal.flower` over Flower. :func:`plan` draws virtual batches.
:class:`SecureOrchestrator` is the secure mode, with :class:`SecureLocal` and :mod:`proxycoop.traversal.flower_secure`.

References:
    Batbaatar et al. (2025), *Traversal learning: a lossless and efficient distributed learning framework*, arXiv 2504.07471.
    *TL++: Accuracy and privacy preserving traversal learning for distributed intelligent systems* (2026), arXiv 2606.25627.
"""

from .batches import VirtualBatch, Visit, from_mask, plan
from .node import Local, Node
from .orchestrator import Orchestrator, Shares
from .ring import Ring
from .secure import Helper, SecureNode
from .secure_orchestrator import SecureLocal, SecureOrchestrator
from .secure_wire import SecureTransport
from .split import SplitModel
from .wire import Traffic, Transport, payload_bytes

__all__ = [
    "Helper",
    "Local",
    "Node",
    "Orchestrator",
    "Ring",
    "SecureLocal",
    "SecureNode",
    "SecureOrchestrator",
    "SecureTransport",
    "Shares",
    "SplitModel",
    "Traffic",
    "Transport",
    "VirtualBatch",
    "Visit",
    "from_mask",
    "payload_bytes",
    "plan",
]
