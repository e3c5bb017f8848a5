"""The manual's chapters on module pruners and operators of one's own: every code block runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torchpruner_core as torchpruner
import torchpruner_core.operator
from torchpruner_core import module_pruner

# --- Module Pruner registration ---------------------------------------------------------------


class Conv2dPruner(module_pruner.BasePruner):
    def __init__(self, name: str) -> None:
        super().__init__(name)  # the manual: super(Conv2dPruner).__init__(self, name)
        # 创建ParameterPruner对象,对weight和bias进行剪枝
        self.weight_pruner = module_pruner.ParameterPruner(name + ".weight")
        self.bias_pruner = module_pruner.ParameterPruner(name + ".bias")

    def set_cut(self, nn_module: Any, cut_dict: Any) -> Any:
        # 剪枝weight
        nn_module.weight, weight_context = self.weight_pruner.set_cut(nn_module.weight, cut_dict)
        # 剪枝bias
        nn_module.bias, bias_context = self.bias_pruner.set_cut(nn_module.bias, cut_dict)
        # 设置in_channels 属性
        nn_module.in_channels = nn_module.weight.data.size(1)
        # 设置out_channels 属性
        nn_module.out_channels = nn_module.weight.data.size(0)
        # 查找是否Conv Operator的属性发生变化,更改group参数
        onnx_name = self.name + ".Conv"
        if onnx_name in cut_dict["operator"]:
            ONNX_params = cut_dict["operator"][onnx_name]
            nn_module.groups -= ONNX_params["group"]
        return nn_module, {**weight_context, **bias_context}


class Conv2dPrunerByTensors(Conv2dPruner):
    """The block's commented lines: ``set_cut_tensor`` takes the tensor's own entry of the cut."""

    def set_cut(self, nn_module: Any, cut_dict: Any) -> Any:
        contexts = {}
        for name in ("weight", "bias"):
            cut_dims = cut_dict["terminal"].get(f"{self.name}.{name}")
            if cut_dims is not None:
                tensor, context = module_pruner.set_cut_tensor(getattr(nn_module, name), cut_dims)
                setattr(nn_module, name, tensor)
                contexts[name] = context
        nn_module.in_channels = nn_module.weight.data.size(1)
        nn_module.out_channels = nn_module.weight.data.size(0)
        return nn_module, contexts


@pytest.fixture
def register() -> Iterator[Any]:
    before = torchpruner.module_pruner_reg.get(nn.Conv2d)
    with pytest.warns(UserWarning, match="replaces"):
        yield torchpruner.module_pruner_reg
        torchpruner.module_pruner_reg.regist(nn.Conv2d, before)


class TestModulePrunerRegistration:
    def test_the_registered_classes(self) -> None:
        for cls in (
            torch.Tensor, nn.Parameter, nn.Conv2d, nn.Conv3d, nn.BatchNorm2d, nn.BatchNorm3d,
        ):  # fmt: skip
            assert cls in torchpruner.module_pruner_reg

    def test_tensor_functions(self) -> None:
        tensor = torch.arange(12.0).reshape(4, 3)
        tensor, context = module_pruner.set_cut_tensor(tensor, [[0, 2], None])
        assert tensor.tolist() == [[3, 4, 5], [9, 10, 11]]
        tensor = module_pruner.recovery_cut_tensor(tensor, [[0, 2], None], context)
        assert torch.equal(tensor, torch.arange(12.0).reshape(4, 3))
        tensor, context = module_pruner.set_zero_tensor(tensor, [[], [1]])
        assert tensor[:, 1].tolist() == [0, 0, 0, 0]
        tensor = module_pruner.recovery_zero_tensor(tensor, [[], [1]], context)
        assert torch.equal(tensor, torch.arange(12.0).reshape(4, 3))

    @pytest.mark.parametrize("pruner", [Conv2dPruner, Conv2dPrunerByTensors])
    def test_a_custom_pruner_of_convolutions(
        self, pruner: type[Any], register: Any, pruning: Any
    ) -> None:
        # 最后将定义的Module Pruner注册
        torchpruner.module_pruner_reg.regist(nn.Conv2d, pruner)
        model, graph = pruning
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        result = graph.modules["self.conv"].cut_analysis("weight", index=[0, 1, 2, 3], dim=0)
        model, context = torchpruner.set_cut(model, result)
        assert (model.conv.out_channels, model.conv2.in_channels) == (12, 12)
        assert model(torch.zeros(1, 3, 8, 8)).shape == (1, 10, 8, 8)
        model = torchpruner.recovery_cut(model, result, context)
        assert (model.conv.out_channels, model.conv2.in_channels) == (16, 16)
        assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


# --- Operator registration --------------------------------------------------------------------


class AveragePool2dOperatorNode(torchpruner.operator.OperatorNode):
    def __init__(self, node: Any) -> None:
        super().__init__(node)

    def analysis(self, node: Any, mask: Any) -> Any:
        in_or_out, _ = self.rank(node)
        if in_or_out == "in":
            return {self.out_data[0].name: mask}, None
        return {self.in_data[0].name: mask}, None

    def fill_shape(self) -> None:
        # the manual: self.in_data.size(), and params named as nn.AvgPool2d names them
        output_size = list(self.in_data[0].size())
        stride, padding = self.params["strides"], self.params["pads"]
        for axis in (0, 1):
            output_size[2 + axis] = (output_size[2 + axis] + padding[axis]) // stride[axis]
        self.out_data[0].shape = tuple(output_size)

    def fill_value(self) -> None:
        input_tensor = torch.tensor(self.in_data[0].data)
        output_tensor = F.avg_pool2d(
            input_tensor, self.params["kernel_shape"], self.params["strides"]
        )
        self.out_data[0].data = output_tensor.numpy()


class Pooled(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3, 1, 1), nn.AvgPool2d(2), nn.Conv2d(8, 4, 3, 1, 1))


class TestOperatorRegistration:
    def test_a_custom_operator_takes_part_in_the_analysis(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        built_in = torchpruner.operator_register.get("AveragePool")
        # 注册算子 (the graph's own name of the operator is AveragePool)
        with caplog.at_level("WARNING", "torchpruner_core"):
            torchpruner.operator_register.regist("AveragePool", AveragePool2dOperatorNode)
        try:
            assert "is now described by AveragePool2dOperatorNode" in caplog.text
            model = Pooled().eval()
            graph = torchpruner.ONNXGraph(model)
            graph.build_graph((torch.zeros(1, 3, 8, 8),))
            result = graph.modules["self.0"].cut_analysis("weight", index=[1, 3], dim=0)
        finally:
            torchpruner.operator_register.regist("AveragePool", built_in)
        assert result["terminal"]["self.2.weight"][1].tolist() == [1, 3]
        assert torchpruner.verify_cut(model, result, torch.randn(1, 3, 8, 8)).equal

    def test_an_operator_of_another_name_is_analysed_as_one_that_is_known(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        classes = dict(torchpruner.operator_register._classes)
        monkeypatch.setattr(torchpruner.operator_register, "_classes", classes)
        torchpruner.operator_register.regist(
            "AveragePool2d", torchpruner.operator.onnx_operator.onnx_local_pool
        )
        assert "AveragePool2d" in torchpruner.operator_register
        assert torchpruner.operator_reg is torchpruner.operator_register
