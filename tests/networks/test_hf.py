"""Networks of the transformers library, without a network connection."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from runs import plan, start

from acclimate.engine.optimisers import groups, lr_scales
from acclimate.errors import DataError, UsageError
from acclimate.networks import build

RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
CONVNEXT = {"model_type": "convnext", "hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2}
SWIN = {"model_type": "swin", "image_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
SEGFORMER = {
    "model_type": "segformer",
    "num_encoder_blocks": 2,
    "depths": [1, 1],
    "sr_ratios": [2, 1],
    "hidden_sizes": [8, 16],
    "patch_sizes": [7, 3],
    "strides": [4, 2],
    "num_attention_heads": [1, 2],
    "mlp_ratios": [2, 2],
    "decoder_hidden_size": 16,
}


def test_without_the_extra_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r'pip install "acclimate\[hf\]"'):
        build("hf", classes=2, config=RESNET)


class TestWithTheExtra:
    @pytest.fixture(scope="class", autouse=True)
    def _extra(self):
        pytest.importorskip("transformers")

    @pytest.mark.parametrize(("config", "features"), [(RESNET, 16), (CONVNEXT, 12), (SWIN, 16)])
    def test_backbones_from_a_configuration(self, config, features):
        net = build("hf", classes=3, size=32, config=config)
        assert net.shapes["features"] == (features,)
        output = net(torch.randn(2, 3, 32, 32))
        assert output.logits.shape == (2, 3)
        output.logits.sum().backward()
        assert any(p.grad.abs().sum() > 0 for p in net.body_parameters() if p.grad is not None)

    def test_segformer_gives_maps_of_the_size_of_the_image(self):
        net = build("hf", classes=4, channels=1, size=32, task="segmentation", config=SEGFORMER)
        output = net(torch.randn(2, 1, 32, 32))
        assert output.logits.shape == (2, 4, 32, 32)
        assert output.features.shape == (2, 16, 8, 8)
        assert len(net.head_parameters()) == 2

    def test_segformer_s_taps_and_rates_are_in_the_recipe(self):
        taps, scales = ["segformer.stages.0", "decode_head.linear_fuse"], {"segformer": 0.1}
        net = build("hf", classes=4, size=(45, 32), task="segmentation", config=SEGFORMER, taps=taps, lr_scales=scales)
        output = net.eval()(torch.randn(2, 3, 45, 32))
        assert output.logits.shape == (2, 4, 45, 32)
        assert {name: tuple(value.shape) for name, value in output.taps.items()} == {
            "segformer.stages.0": (2, 8, 12, 8),
            "decode_head.linear_fuse": (2, 16, 12, 8),
        }
        head = net.module.decode_head
        fused = head.activation(head.batch_norm(output.taps["decode_head.linear_fuse"]))
        torch.testing.assert_close(output.features, fused)
        slow = {id(p) for g in groups(net, lr_scales(net)) if g["lr_scale"] == 0.1 for p in g["params"]}
        assert slow == {id(p) for p in net.module.segformer.parameters()}
        recipe = json.loads(json.dumps(net.recipe))
        again = build(recipe["name"], **recipe["settings"])
        again.load_state_dict(net.state_dict())
        x = torch.randn(2, 3, 45, 32)
        torch.testing.assert_close(again.eval()(x).taps, net(x).taps)
        assert (again.recipe, again.lr_scales) == (net.recipe, scales)

    def test_segformer_learns_from_a_run(self):
        net = build("hf", classes=2, channels=1, size=32, task="segmentation", config=SEGFORMER)
        before = {name: p.clone() for name, p in net.named_parameters() if p.ndim > 1}
        after = dict(
            start("dann", "segmentation", net=net, how=plan(steps=2, batch=2)).model.method.net.named_parameters()
        )
        assert [name for name, p in before.items() if torch.equal(after[name], p)] == []

    @pytest.mark.parametrize(("config", "task"), [(RESNET, "classification"), (SEGFORMER, "segmentation")])
    def test_the_recipe_makes_the_same_architecture(self, config, task):
        net = build("hf", classes=3, size=32, config=config, task=task)
        recipe = json.loads(json.dumps(net.recipe))
        again = build(recipe["name"], **recipe["settings"])
        again.load_state_dict(net.state_dict())
        x = torch.randn(2, 3, 32, 32)
        torch.testing.assert_close(again.eval()(x).logits, net.eval()(x).logits)

    def test_a_folder_gives_weights_and_normalisation_and_the_recipe_needs_it_no_more(self, tmp_path):
        saved = build("hf", classes=3, size=32, config=RESNET)
        saved.module.backbone.save_pretrained(tmp_path)
        (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]}')
        net = build("hf", classes=5, size=32, model=str(tmp_path))
        x = torch.randn(2, 3, 32, 32)
        torch.testing.assert_close(net.eval().features(x), saved.eval().features(x))
        assert net.normalisation == ((0.1, 0.2, 0.3), (1, 2, 3))
        for path in tmp_path.iterdir():
            path.unlink()
        again = build("hf", **net.recipe["settings"])
        assert again.normalisation == net.normalisation
        assert again.load_state_dict(net.state_dict())

    def test_a_folder_with_a_pickle_instead_of_safetensors_is_refused(self, tmp_path):
        net = build("hf", classes=3, size=32, config=RESNET)
        net.module.backbone.config.save_pretrained(tmp_path)
        torch.save(net.module.backbone.state_dict(), tmp_path / "pytorch_model.bin")
        with pytest.raises(DataError, match="cannot load it"):
            build("hf", classes=3, size=32, model=str(tmp_path))

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({}, "either model= .* or config="),
            ({"config": {"depths": [1]}}, "model_type"),
            ({"config": {"model_type": "bert"}}, "cannot build 'bert'"),
            ({"config": {"model_type": "no-such"}}, "cannot build 'no-such'"),
            ({"model": "microsoft/resnet-50"}, "download=True"),
            ({"config": RESNET, "task": "detection"}, "classification or segmentation"),
        ],
    )
    def test_mistakes_are_named(self, settings, message):
        with pytest.raises(UsageError, match=message):
            build("hf", classes=3, size=32, **settings)
