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
"""What the quickstart says of its comparison follows from the intervals, and from nothing else."""

from hypothesis import given
from hypothesis import strategies as st
from verdict import KLS, OTHERS, verdict

figures = st.tuples(st.floats(-5, 5), st.floats(0.1, 3)).map(
    lambda drawn: {"value": drawn[0], "low": drawn[0] - drawn[1], "high": drawn[0] + drawn[1]}
)
comparisons = st.fixed_dictionaries({name: st.fixed_dictionaries(dict.fromkeys(KLS, figures)) for name in OTHERS})


@given(comparisons)
def test_a_difference_is_claimed_where_the_interval_leaves_zero_out(differences: dict) -> None:
    said = verdict({"differences": differences}).splitlines()
    for line, (name, title) in zip(said, OTHERS.items(), strict=False):
        assert line.startswith(f"Against {title}: ")
        # The differences are the others' to GAD: above 0 the other is farther from the teacher.
        nearer = [label for key, label in KLS.items() if differences[name][key]["low"] > 0]
        farther = [label for key, label in KLS.items() if differences[name][key]["high"] < 0]
        claim = line.partition("(KL")[0] if not (nearer or farther) else line.rpartition(" (")[0]
        assert ("nearer" in claim) == bool(nearer) and ("no difference" in claim) == (not nearer and not farther)
        assert "farther" in claim if farther else "farther" not in claim
        for key in KLS:
            assert f"{-differences[name][key]['value']:+.2f}" in line
    of_seqkd = differences["seqkd"]
    assert (len(said) == 3) == all(of_seqkd[key]["low"] <= 0 for key in KLS)
