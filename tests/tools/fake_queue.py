# Copyright 2026 The gad_verl Authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""TransferQueue in one process: the functions that verl's trainer and gad_verl call, on dictionaries."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.utils.tensordict_utils import list_of_dict_to_tensordict


class FakeTransferQueue:
    """Keys of partitions, each with fields and tags. ``puts`` lists the fields that were written, in order."""

    def __init__(self) -> None:
        self.fields: dict[str, dict[str, dict[str, Any]]] = {}
        self.tags: dict[str, dict[str, dict[str, Any]]] = {}
        self.puts: list[tuple[str, list[str], list[str]]] = []
        # What verl has cleared, in order.
        self.cleared: list[dict[str, Any]] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take the place of the real one in this process."""
        for name in ("kv_batch_put", "kv_batch_get", "kv_list", "kv_clear", "save_checkpoint", "load_checkpoint"):
            monkeypatch.setattr(f"transfer_queue.{name}", getattr(self, name))

    def kv_batch_put(
        self,
        keys: list[str],
        partition_id: str,
        fields: TensorDict | None = None,
        tags: list[dict[str, Any]] | None = None,
    ) -> KVBatchMeta:
        """As transfer_queue's: fields are added to those that a key has, tags replace tags of the same name."""
        assert fields is not None or tags, "nothing to put"
        stored, marked = self.fields.setdefault(partition_id, {}), self.tags.setdefault(partition_id, {})
        if fields is not None:
            assert len(fields) == len(keys), f"{len(fields)} rows for {len(keys)} keys"
            self.puts.append((partition_id, list(keys), sorted(fields.keys())))
        columns = {} if fields is None else {name: _rows(fields, name) for name in fields.keys()}
        for row, key in enumerate(keys):
            stored.setdefault(key, {}).update({name: column[row] for name, column in columns.items()})
            marked.setdefault(key, {}).update(tags[row] if tags else {})
        return KVBatchMeta(keys=list(keys), tags=[marked[key] for key in keys], partition_id=partition_id)

    def kv_batch_get(
        self, keys: list[str], partition_id: str, select_fields: list[str] | str | None = None
    ) -> TensorDict:
        """Fields that nobody wrote are left out; one that only some keys have is an error, as with the real one."""
        rows = [self.fields[partition_id][key] for key in keys]
        known = set().union(*rows)
        names = known if select_fields is None else [name for name in select_fields if name in known]
        lacking = [(key, name) for key, row in zip(keys, rows, strict=True) for name in names if name not in row]
        if lacking:
            raise ValueError(f"keys without a field: {lacking[:3]}")
        data = list_of_dict_to_tensordict([{name: row[name] for name in names} for row in rows])
        for name in names:
            if isinstance(rows[0][name], torch.Tensor) and rows[0][name].dim() > 0:
                # Rows of one length are nested too.
                data[name] = torch.nested.as_nested_tensor([row[name] for row in rows], layout=torch.jagged)
        return data

    def kv_list(self, partition_id: str | None = None) -> dict[str, dict[str, Any]]:
        """Tags by key."""
        wanted = self.tags if partition_id is None else {partition_id: self.tags.get(partition_id, {})}
        return {name: {key: dict(tag) for key, tag in tags.items()} for name, tags in wanted.items()}

    def save_checkpoint(self, path: str, metadata: dict[str, Any] | None = None) -> None:
        """All that is there."""
        Path(path).mkdir(parents=True)
        (Path(path) / "queue.pkl").write_bytes(pickle.dumps((self.fields, self.tags)))

    def load_checkpoint(self, path: str) -> None:
        """What was there."""
        self.fields, self.tags = pickle.loads((Path(path) / "queue.pkl").read_bytes())

    def kv_clear(self, keys: list[str], partition_id: str) -> None:
        """Forget keys."""
        for key in keys:
            self.cleared.append(self.fields.get(partition_id, {}).pop(key, {}))
            self.tags.get(partition_id, {}).pop(key, None)


def _rows(fields: TensorDict, name: str) -> list[Any]:
    value = fields.get(name)
    if isinstance(value, torch.Tensor):
        return list(value.unbind())
    return list(value.tolist())
