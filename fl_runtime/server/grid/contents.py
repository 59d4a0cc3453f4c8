"""What the messages of one phase carry: uploaded once each, however many devices get it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from flwr.app import Message, RecordDict

from edge.protocol.messages import ObjectRef
from edge.protocol.records import digest, encode_skeleton
from edge.training.flower_compat import from_recorddict
from fl_runtime.run.messages import ArraySpec
from fl_runtime.server.grid.weights import PhaseContent, WeightStore


@dataclass(frozen=True)
class PhaseContents:
    """The contents of one phase. Most strategies send one to all devices; an app may send each
    device its own, such as a learning rate.
    """

    different: Sequence[PhaseContent]
    """Each once, in the order of the messages."""
    by_node: Mapping[int, int]
    """Index among them, by node id."""

    @property
    def digest(self) -> str:
        """Identifies all contents."""
        digests = [content.digest for content in self.different]
        return digests[0] if len(digests) == 1 else digest(" ".join(digests).encode())

    @property
    def arrays(self) -> ObjectRef | None:
        """The arrays that all devices get; None when they get none, or different ones."""
        first = self.different[0].arrays
        return first if all(content.arrays == first for content in self.different) else None

    @property
    def specs(self) -> list[ArraySpec] | None:
        """The layout that all contents have; None when they have several."""
        first = self.different[0].specs
        return first if all(content.specs == first for content in self.different) else None

    @property
    def largest(self) -> int | None:
        """Bytes of the largest arrays; None where a content has none."""
        sizes = [content.arrays.size for content in self.different if content.arrays is not None]
        return max(sizes) if len(sizes) == len(self.different) else None


def upload_contents(messages: Sequence[Message], weights: WeightStore) -> PhaseContents:
    """Upload what the messages carry. An array record that several contents share is encoded once:
    apps add a configuration for each device to one model.
    """
    uploaded: dict[int, PhaseContent] = {}
    by_arrays: dict[tuple[int, ...], PhaseContent] = {}
    for message in messages:
        content = message.content
        if id(content) in uploaded:
            continue
        arrays = tuple(id(record) for record in content.array_records.values())
        known = by_arrays.get(arrays)
        made = (
            weights.upload(from_recorddict(content)) if known is None else _beside(known, content)
        )
        uploaded[id(content)] = by_arrays[arrays] = made
    different = list({made.digest: made for made in uploaded.values()}.values())
    index = {made.digest: number for number, made in enumerate(different)}
    return PhaseContents(
        different,
        {
            message.metadata.dst_node_id: index[uploaded[id(message.content)].digest]
            for message in messages
        },
    )


def _beside(known: PhaseContent, content: RecordDict) -> PhaseContent:
    """A content with the same arrays, and other records beside them."""
    rest = RecordDict({**content.metric_records, **content.config_records})
    records = replace(from_recorddict(rest), order=tuple(content))
    return replace(known, skeleton=encode_skeleton(records))


def round_of(messages: Sequence[Message]) -> int:
    """The round that the messages say they belong to: FedAvg puts it into the configuration, older
    workflows into the group. 0: they do not say.
    """
    for config in messages[0].content.config_records.values():
        value = config.get("server-round")
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    group = messages[0].metadata.group_id
    return int(group) if group.isascii() and group.isdigit() and len(group) < 9 else 0
