"""The complete list of what may cross between the parties, and how it is encoded.

The data owner sends a `Request`; the LM owner answers with the `Message` it names. A message is a
frozen msgspec struct, tagged with its class name and encoded as msgpack; the bytes counted anywhere
in Cosilo are the bytes of this encoding. Nothing is ever unpickled.

Each kind of exchange has a file: the request and its reply. A class of messages is known once it is
defined, a plug-in's like ours.

Nothing here may mention an `Example` or a `Secret`, and the import rules see to it.
"""

from __future__ import annotations

from cosilo.boundary.messages.ask import Ask, Completion, Piece
from cosilo.boundary.messages.base import (
    LARGEST,
    SMALL,
    Beside,
    Drawn,
    Message,
    Request,
    decode,
    encode,
)
from cosilo.boundary.messages.body import Body, OpenBody
from cosilo.boundary.messages.embed import Embed, Embeddings
from cosilo.boundary.messages.encrypted import (
    AskHead,
    EncryptedLogits,
    EncryptedVector,
    EvaluationKeys,
    HeadDescribed,
    KeysTaken,
)
from cosilo.boundary.messages.federate import (
    Contribute,
    Contributed,
    Enrol,
    Enrolled,
    NextRound,
    RoundState,
)
from cosilo.boundary.messages.federate_sums import (
    Advertise,
    HandShares,
    Masked,
    NextStep,
    SumState,
    Unmask,
)
from cosilo.boundary.messages.forget import Forget, Forgotten
from cosilo.boundary.messages.forward import Backward, Forward, Gradients, Outputs
from cosilo.boundary.messages.joint import (
    AskJoint,
    CloseJoint,
    Joint,
    JointClosed,
    JointOffered,
    JointOpened,
    JointSpent,
    OpenJoint,
)
from cosilo.boundary.messages.lend import Lend, Lent, PluggedIn, PlugIn
from cosilo.boundary.messages.read import Read, States
from cosilo.boundary.messages.refused import Refused
from cosilo.boundary.messages.score import Score, Scored, Scores
from cosilo.boundary.messages.step import Step, Steps
from cosilo.boundary.messages.tune import Tune, Tuned
from cosilo.boundary.messages.verify import Verified, Verify

__all__ = [
    "LARGEST", "SMALL", "Advertise", "Ask", "AskHead", "AskJoint", "Backward", "Beside", "Body",
    "CloseJoint", "Completion", "Contribute", "Contributed", "Drawn", "Embed", "Embeddings",
    "EncryptedLogits", "EncryptedVector", "Enrol", "Enrolled", "EvaluationKeys", "Forget",
    "Forgotten", "Forward", "Gradients", "HandShares", "HeadDescribed", "Joint", "JointClosed",
    "JointOffered", "JointOpened", "JointSpent", "KeysTaken", "Lend", "Lent", "Masked", "Message",
    "NextRound", "NextStep", "OpenBody", "OpenJoint", "Outputs", "Piece", "PlugIn", "PluggedIn",
    "Read", "Refused", "Request", "RoundState", "Score", "Scored", "Scores", "States", "Step",
    "Steps", "SumState", "Tune", "Tuned", "Unmask", "Verified", "Verify", "decode", "encode",
]  # fmt: skip
