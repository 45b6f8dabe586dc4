# Copyright 2025 Individual Contributor: The gad_verl Authors
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
"""What a vision tower returns, read by verl's embeddings of Qwen2.5-VL and GLM-4V, on tiny random models."""

import pytest
import torch
from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from verl.models.transformers import glm4v, qwen2_vl

IMAGE = 250
TEXT = {
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}


def qwen2_5_vl():
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "out_hidden_size": 32}
    vision |= {"fullatt_block_indexes": [1], "window_size": 112, "patch_size": 14}
    config = Qwen2_5_VLConfig(text_config=TEXT, vision_config=vision, image_token_id=IMAGE)
    return qwen2_vl, Qwen2_5_VLForConditionalGeneration(config).model


def glm_4v():
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "out_hidden_size": 32}
    config = Glm4vConfig(text_config=TEXT, vision_config=vision, image_token_id=IMAGE)
    return glm4v, Glm4vForConditionalGeneration(config).model


@pytest.fixture(params=[qwen2_5_vl, glm_4v], ids=lambda made: made.__name__)
def family(request):
    torch.manual_seed(0)
    return request.param()


def test_rows_of_text_pass_through_and_reach_the_tower(family):
    module, model = family
    ids = torch.randint(0, 200, (2, 5))
    embeds, mask = module._get_input_embeds(model, ids, torch.ones_like(ids))
    torch.testing.assert_close(embeds, model.get_input_embeddings()(ids))
    assert mask.shape == ids.shape
    embeds.sum().backward()
    # FSDP waits for the gradients of all ranks: the tower takes part where no row has an image.
    gradients = [weight.grad for weight in model.visual.parameters() if weight.grad is not None]
    assert gradients and all(not gradient.any() for gradient in gradients)


def test_images_stand_where_their_tokens_are(family):
    module, model = family
    vision = model.config.vision_config
    pixels = torch.randn(16, vision.in_channels * vision.temporal_patch_size * vision.patch_size**2)
    grid = torch.tensor([[1, 4, 4]])
    ids = torch.tensor([[1, IMAGE, IMAGE, IMAGE, IMAGE, 2]])
    embeds, _ = module._get_input_embeds(model, ids, pixel_values=pixels, image_grid_thw=grid)
    seen = model.visual(pixels, grid_thw=grid).pooler_output
    torch.testing.assert_close(embeds[0, 1:5], seen)
    torch.testing.assert_close(embeds[0, [0, 5]], model.get_input_embeddings()(ids[0, [0, 5]]))
