"""The manual's chapters on cutting a model, function modules and model tools: every code block runs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torchpruner_core as torchpruner
import torchpruner_core.operator

# --- Model Pruner -----------------------------------------------------------------------------


class TestModelPruner:
    def test_set_cut(self, pruning: Any) -> None:
        model, graph = pruning
        # 获取卷积module
        conv_module = graph.modules["self.conv"]
        # 去卷积的前四个通道,
        analysis_result = conv_module.cut_analysis("weight", index=[0, 1, 2, 3], dim=0)
        # 执行剪枝操作
        model, _ = torchpruner.set_cut(model, analysis_result)
        assert model.conv.weight.shape == (12, 3, 3, 3)
        assert model(torch.zeros(1, 3, 8, 8)).shape == (1, 10, 8, 8)

    def test_recovery_cut(self, pruning: Any) -> None:
        model, graph = pruning
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        analysis_result = graph.modules["self.conv"].cut_analysis(
            "weight", index=[0, 1, 2, 3], dim=0
        )
        model, param_context = torchpruner.set_cut(model, analysis_result)
        # 恢复模型 (the manual passes the model in the place of the context)
        model = torchpruner.recovery_cut(model, analysis_result, param_context)
        assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())

    def test_set_cut_optimizer_and_recovery_optimizer(self, pruning: Any) -> None:
        model, graph = pruning
        # 创建优化器
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        model(torch.randn(2, 3, 8, 8)).sum().backward()
        optimizer.step()
        analysis_result = graph.modules["self.conv"].cut_analysis(
            "weight", index=[0, 1, 2, 3], dim=0
        )
        # 执行剪枝操作
        model, _ = torchpruner.set_cut(model, analysis_result)
        # 对优化器进行剪枝
        optimizer, state_param_context = torchpruner.set_cut_optimizer(
            model, optimizer, analysis_result
        )
        momentum = optimizer.state[model.conv.weight]["momentum_buffer"]
        assert momentum.shape == (12, 3, 3, 3)
        # 对优化器恢复
        optimizer = torchpruner.recovery_optimizer(
            model, optimizer, analysis_result, state_param_context
        )
        momentum = optimizer.state[model.conv.weight]["momentum_buffer"]
        assert momentum.shape == (16, 3, 3, 3)

    def test_set_zero_and_recovery_zero(self, pruning: Any) -> None:
        model, graph = pruning
        analysis_result = graph.modules["self.conv"].cut_analysis(
            "weight", index=[0, 1, 2, 3], dim=0
        )
        model, context = torchpruner.set_zero(model, analysis_result)
        assert not model.conv.weight[:4].any()
        model = torchpruner.recovery_zero(model, analysis_result, context)
        assert model.conv.weight[:4].any()


# --- Function Module --------------------------------------------------------------------------


class Functions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.conv(x))
        y = torch.add(y, x)
        y = torch.mul(y, x)
        y = y + x
        y = 2 * y
        return torch.cat([y, x], dim=1)


@pytest.fixture
def functions() -> Iterator[None]:
    yield
    torchpruner.deactivate_function_module()


@pytest.mark.usefixtures("functions")
class TestFunctionModule:
    def test_the_mode_is_turned_on_and_off(self) -> None:
        assert torchpruner.function_module_activate() is False
        torchpruner.activate_function_module()
        assert torchpruner.function_module_activate() is True
        torchpruner.deactivate_function_module()
        assert torchpruner.function_module_activate() is False

    def test_every_function_call_gets_a_module_of_its_own(self) -> None:
        model, x = Functions(), torch.randn(1, 3, 4, 4)
        expected = model(x)
        torchpruner.activate_function_module()
        model = torchpruner.init_function_module(model, (x,))
        entries = model._function_module_list
        assert [type(entry).__name__ for entry in entries] == [
            "Relu", "Add", "Mul", "Add", "Mul", "Cat",
        ]  # fmt: skip
        assert getattr(model, "__function_module_list") is entries
        assert model._init_function_module_ok
        assert torch.equal(model(x), expected)

    def test_a_model_with_the_mode_off_ignores_the_list(self) -> None:
        model, x = Functions(), torch.randn(1, 3, 4, 4)
        expected = model(x)
        model = torchpruner.init_function_module(model, (x,))
        model._function_module_list[0] = nn.Sigmoid()
        assert torch.equal(model(x), expected)
        torchpruner.activate_function_module()
        assert not torch.equal(model(x), expected)

    def test_function_modules_are_found_and_replaced_by_the_model_tools(self) -> None:
        model = torchpruner.init_function_module(Functions(), (torch.randn(1, 3, 4, 4),))
        names = torchpruner.model_tools.get_names_by_class(model, torchpruner.function_module.Add)
        assert names == ["self._function_module_list.1", "self._function_module_list.3"]
        torchpruner.model_tools.replace_object_by_names(
            model, names, lambda name, old: nn.Identity()
        )
        assert isinstance(model._function_module_list[1], nn.Identity)


# --- Model Tools ------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_bn = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16))
        self.activation = nn.ReLU()
        self.conv2 = nn.Conv2d(16, 10, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv_bn(x)
        x = self.activation(x)
        return self.conv2(x)


def merge_conv_bn(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    bn_weight, bn_bias = bn.weight, bn.bias
    bn_running_mean, bn_running_var, eps = bn.running_mean, bn.running_var, bn.eps
    conv_weight, conv_bias = conv.weight, conv.bias
    with torch.no_grad():
        factor = bn_weight / torch.sqrt(bn_running_var + eps)
        conv_weight = conv_weight * factor.view(-1, 1, 1, 1)
        conv_bias = ((0 if conv_bias is None else conv_bias) - bn_running_mean) * factor + bn_bias
    conv_merge = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride,
        conv.padding, conv.dilation, conv.groups, bias=True,
    )  # fmt: skip
    conv_merge.weight = nn.Parameter(conv_weight)
    conv_merge.bias = nn.Parameter(conv_bias)
    return conv_merge


class TestModelTools:
    def test_get_object(self) -> None:
        # 创建模型
        model = nn.Sequential(
            nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 10, 3, 1, 1)
        )
        # 获取第二个元素
        bn = torchpruner.get_object(model, "self.1")
        assert bn is model[1]

    def test_set_object(self) -> None:
        model = Net()
        # 替换激活函数为Sigmoid
        model = torchpruner.set_object(model, "self.activation", nn.Sigmoid())
        assert isinstance(model.activation, nn.Sigmoid)

    def test_get_names_by_class(self) -> None:
        model = Net()
        # 查找所有的卷积
        name_list = torchpruner.model_tools.get_names_by_class(model, nn.Conv2d, False)
        assert name_list == ["self.conv_bn.0", "self.conv2"]
        # 查找所有的模块
        name_list = torchpruner.model_tools.get_names_by_class(model, nn.Module, True)
        # 当发现第一个符合要求的对象时即停止查找,不会查找其子元素
        assert name_list == ["self"]
        # 所有的模块其type都不为nn.Module
        name_list = torchpruner.model_tools.get_names_by_class(model, nn.Module, False)
        assert name_list == []

    @pytest.fixture(scope="class")
    def graph(self) -> Any:
        # 创建静态图结构
        graph = torchpruner.ONNXGraph(Net().eval())
        graph.build_graph((torch.zeros(1, 3, 32, 32),))
        return graph

    def test_get_name_groups_by_classes(self, graph: Any) -> None:
        # 查找conv bn relu结构
        name_groups_list = torchpruner.model_tools.get_name_groups_by_classes(
            graph, [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
        )
        assert name_groups_list == [["self.conv_bn.0", "self.conv_bn.1", "self.activation"]]

    def test_replace_object_by_names(self) -> None:
        model = Net()
        name_list = torchpruner.model_tools.get_names_by_class(model, nn.Conv2d, False)

        # 将所有的卷积层,替换成深度可分离卷积
        def replace_function(module_name: str, origin_module: Any) -> nn.Module:
            # 定义depthwise卷积
            depthwise_conv = nn.Conv2d(
                origin_module.in_channels, origin_module.in_channels, origin_module.kernel_size,
                origin_module.stride, origin_module.padding, groups=origin_module.groups,
            )  # fmt: skip
            pointwise_conv = nn.Conv2d(
                origin_module.in_channels, origin_module.out_channels, 1, 1, 0
            )
            return nn.Sequential(depthwise_conv, pointwise_conv)

        # 执行替换操作
        model = torchpruner.model_tools.replace_object_by_names(model, name_list, replace_function)
        assert isinstance(model.conv2, nn.Sequential)
        assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10, 32, 32)

    def test_replace_object_by_name_groups(self, graph: Any) -> None:
        model = copy.deepcopy(graph.model)
        x = torch.randn(1, 3, 32, 32)
        expected = model(x)
        name_groups_list = torchpruner.model_tools.get_name_groups_by_classes(
            graph, [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
        )

        # 将conv 与 bn融合
        def replace_function(module_names: Any, origin_modules: Any) -> Any:
            merged = merge_conv_bn(origin_modules[0], origin_modules[1])
            return merged, nn.Identity(), origin_modules[2]

        # 执行替换操作 (the manual calls replace_object_by_names here)
        model = torchpruner.model_tools.replace_object_by_name_groups(
            model, name_groups_list, replace_function
        )
        assert isinstance(model.conv_bn[1], nn.Identity)
        torch.testing.assert_close(model(x), expected)

    def test_replace_object_by_class(self) -> None:
        model = torchpruner.replace_object_by_class(Net(), nn.ReLU, lambda name, old: nn.GELU())
        assert isinstance(model.activation, nn.GELU)
