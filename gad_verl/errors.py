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
"""Errors that a user can act on. Each message names the file, row or key and the remedy."""


class GadConfigError(ValueError):
    """A configuration that cannot work."""


class GadDataError(ValueError):
    """A data file or a row that cannot be trained on."""


class GadCompatError(RuntimeError):
    """The installed verl lacks something that gad_verl uses."""


class GadCheckpointError(RuntimeError):
    """A checkpoint that is incomplete or does not belong to this run."""


class GadStalledError(RuntimeError):
    """A worker died or stopped answering."""


class GadEndpointError(RuntimeError):
    """An API that cannot be reached, refuses the key, or does not speak the OpenAI protocol."""


class GadClusterError(RuntimeError):
    """A Ray cluster that is not what a run needs."""


# What a command answers with one line and exit code 2 instead of a traceback.
USER_ERRORS = (
    GadConfigError,
    GadDataError,
    GadCompatError,
    GadCheckpointError,
    GadEndpointError,
    GadClusterError,
    FileExistsError,
)
