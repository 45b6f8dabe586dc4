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
"""What a checkpoint has become: generation, comparison with the teacher's texts, a judge, two-sample tests.

Beside the trainer, and meets it only through files. Mathematics: :mod:`~gad_verl.core.intervals`,
:mod:`~gad_verl.tools.evaluation.diversity`, :mod:`~gad_verl.tools.evaluation.two_sample`,
:mod:`~gad_verl.tools.evaluation.preferences`, :mod:`~gad_verl.tools.evaluation.judge_replies`. The rest reads, asks and
writes.
"""
