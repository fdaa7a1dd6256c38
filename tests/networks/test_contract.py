"""Any module becomes a network whose logits, features and taps come from one pass."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from acclimate.errors import UsageError
from acclimate.networks import Network


class Plain(nn.Module):
    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6))
        self.drop = nn.Dropout(0.5)
        self.unused = nn.Linear(2, 2)
        self.fc = nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(F.relu(self.stem(x)).mean((2, 3))))


class Map(nn.Module):
    """Logits at half the resolution, in an object, as the transformers library gives them."""

    class Result:
        def __init__(self, logits: Tensor) -> None:
            self.logits = logits

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.classifier = nn.Conv2d(5, 2, 1)

    def forward(self, x: Tensor) -> Map.Result:
        return self.Result(self.classifier(self.stem(x)))


def made(**options) -> Network:
    torch.manual_seed(0)
    return Network(Plain(), "fc", input_shape=(3, 8, 8), taps=("stem",), **options)


def test_one_pass_gives_logits_features_and_taps():
    net, x = made().eval(), torch.randn(2, 3, 8, 8)
    logits, features, taps = net(x)
    stem = net.module.stem(x)
    torch.testing.assert_close(taps["stem"], stem)
    torch.testing.assert_close(features, F.relu(stem).mean((2, 3)))
    torch.testing.assert_close(logits, net.head(features))
    torch.testing.assert_close(net.features(x), features)
    assert net.shapes == {"features": (6,), "stem": (6, 8, 8), "logits": (4,)}


def test_features_carry_gradients_to_the_body():
    net = made()
    net(torch.randn(4, 3, 8, 8)).features.square().sum().backward()
    assert net.module.stem[0].weight.grad.abs().sum() > 0
    assert net.module.fc.weight.grad is None


def test_head_and_body_parameters_are_disjoint_and_complete():
    net = made()
    head, body = ({id(p) for p in part} for part in (net.head_parameters(), net.body_parameters()))
    assert head == {id(net.module.fc.weight), id(net.module.fc.bias)}
    assert not head & body
    assert head | body == {id(p) for p in net.parameters()}


def test_construction_leaves_no_trace():
    module = Plain().train()
    module.drop.eval()
    before = copy.deepcopy(module.state_dict())
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    Network(module, "fc", input_shape=(3, 8, 8))
    assert torch.equal(torch.rand(1), expected)
    assert module.stem.training
    assert not module.drop.training
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_copy_reads_its_own_activations():
    net, x = made().eval(), torch.randn(2, 3, 8, 8)
    twin = copy.deepcopy(net)
    with torch.no_grad():
        twin.module.stem[0].weight.zero_()
        twin.module.stem[0].bias.fill_(1)
    features, twins = net.features(x), twin.features(x)
    assert not torch.allclose(features, twins)
    torch.testing.assert_close(net(x).features, features)
    torch.testing.assert_close(twin(x).taps["stem"], twin.module.stem(x))


def test_a_network_can_be_copied_after_a_training_pass():
    net = made()
    net(torch.randn(4, 3, 8, 8)).logits.sum().backward()
    copy.deepcopy(net)


def test_state_keys_are_the_modules():
    assert set(made().state_dict()) == {f"module.{name}" for name in Plain().state_dict()}


def test_compiled_network_gives_the_same():
    net, x = made().eval(), torch.randn(2, 3, 8, 8)
    compiled = torch.compile(net, backend="eager")
    for _ in range(2):
        expected, got = net(x), compiled(x)
        torch.testing.assert_close(got.logits, expected.logits)
        torch.testing.assert_close(got.features, expected.features)
        torch.testing.assert_close(got.taps["stem"], expected.taps["stem"])
    other = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(compiled(other).features, net(other).features)


def test_autocast_and_channels_last():
    net = made().eval().to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 8, 8)
    expected = net(x)
    torch.testing.assert_close(net(x.contiguous(memory_format=torch.channels_last)).logits, expected.logits)
    with torch.autocast("cpu", torch.bfloat16):
        output = net(x)
    assert output.logits.dtype == torch.bfloat16
    torch.testing.assert_close(output.logits.float(), expected.logits, atol=0.05, rtol=0.05)


def test_small_maps_are_brought_to_the_size_of_the_image():
    net = Network(Map(), "classifier", input_shape=(3, 8, 8))
    x = torch.randn(2, 3, 12, 10)
    small = net.module.classifier(net.module.stem(x))
    expected = F.interpolate(small, size=(12, 10), mode="bilinear", align_corners=False)
    torch.testing.assert_close(net(x).logits, expected)
    assert net.shapes["logits"] == (2, 8, 8)
    assert net.shapes["features"] == (5, 4, 4)


def test_align_names_the_features_or_a_tap():
    x = torch.randn(2, 3, 8, 8)
    plain, tapped = made().eval(), made(align="stem").eval()
    assert (plain.align, tapped.align) == ("features", "stem")
    output = tapped(x)
    assert tapped.aligned(output) is output.taps["stem"]
    output = plain(x)
    assert plain.aligned(output) is output.features


def test_normalisation_is_a_half_unless_given():
    assert made().normalisation == ((0.5,) * 3, (0.5,) * 3)
    assert made(normalisation=([0.1, 0.2, 0.3], [1, 1, 2])).normalisation == ((0.1, 0.2, 0.3), (1, 1, 2))
    with pytest.raises(UsageError, match="each of the 3 channels"):
        made(normalisation=([0.1], [0.2]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "fcc"}, "'fcc' to serve as head; did you mean 'fc'"),
        ({"taps": ("stam",)}, "'stam' to serve as tap; did you mean 'stem'"),
        ({"head": "unused"}, "never calls its head 'unused'"),
        ({"taps": ("unused",)}, "never calls its tap 'unused'"),
        ({"taps": ("stem",), "align": "stme"}, "did you mean 'stem'"),
        ({"input_shape": (1, 8, 8)}, r"give the right input_shape=\(C, H, W\)"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        Network(Plain(), **{"input_shape": (3, 8, 8), **options})


def test_an_output_without_classes_is_refused():
    class Scalar(Plain):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[:, 0]

    with pytest.raises(UsageError, match="needs a class dimension"):
        Network(Scalar(), "fc", input_shape=(3, 8, 8))
