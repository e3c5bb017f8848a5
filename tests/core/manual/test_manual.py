"""The manual, read from the top: every code block runs.

The manual's import name ``torchpruner`` is ``torchpruner_core`` here. Its slips are put right as
noted beside each block: ``graph.node`` is ``graph.nodes``, ``nn.Relu`` is ``nn.ReLU``,
``recovery_cut(model, result, model)`` takes the context, ``super(X).__init__(self, ...)`` is
``super().__init__(...)``, ``torch.optim.SGD(model, parameters(), ...)`` is ``model.parameters()``.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import torchpruner_core as torchpruner
import torchpruner_core.operator
from torchpruner_core import module_pruner


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


# --- Graph ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet() -> torchpruner.ONNXGraph:
    # 加载模型
    model = torchvision.models.resnet50()
    # 创建ONNXGraph对象,绑定需要被剪枝的模型
    graph = torchpruner.ONNXGraph(model)
    # 一个输入,batch size =1 channel=3 height=224 width=224
    inputs = (torch.zeros(1, 3, 224, 224),)
    graph.build_graph(inputs)
    return graph


class TestGraph:
    def test_build_graph_fills_the_values_of_the_intermediate_tensors(self, resnet: Any) -> None:
        assert all(node.data is not None for node in resnet.nodes.values())

    def test_forward_updates_the_values(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
        graph = torchpruner.ONNXGraph(model)
        graph.build_graph((torch.zeros(1, 3, 8, 8),))
        x = torch.randn(1, 3, 8, 8)
        graph.forward((x,))
        (output,) = graph.outputs.values()
        torch.testing.assert_close(torch.from_numpy(output.data), model(x))

    def test_the_device_is_cpu_or_gpu(self, resnet: Any) -> None:
        graph = torchpruner.ONNXGraph(torchvision.models.resnet18(), onnx_device="CPU")
        assert graph.get_device() == "CPU"
        graph.set_device("GPU")
        assert graph.get_device() == "GPU"

    def test_flops_are_in_millions(self, resnet: Any) -> None:
        assert 8000 < resnet.flops() < 8400

    def test_modules_are_found_by_their_names(self, resnet: Any) -> None:
        assert isinstance(resnet.modules, OrderedDict)
        # 访问pytorch 模型中 nn.Module conv1 对应的Module对象
        module = resnet.modules["self.conv1"]
        assert isinstance(module.nn_object, nn.Conv2d)

    def test_nodes_are_found_by_parameter_name_and_by_number(self, resnet: Any) -> None:
        # 访问pytorch 模型中 nn.Module conv1的权重 (the manual says graph.node)
        node = resnet.nodes["self.conv1.weight"]
        assert node.size() == (64, 3, 7, 7)
        # 访问 110号中间变量
        node = resnet.nodes["110"]
        assert not node.is_terminal()

    def test_operators_are_an_ordered_dict(self, resnet: Any) -> None:
        assert isinstance(resnet.operators, OrderedDict)
        assert "self.layer1.0.conv1.Conv" in resnet.operators


# --- Module -----------------------------------------------------------------------------------


class ConvBnNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, 1, 1)
        self.bn = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 10, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv2(torch.relu(self.bn(self.conv(x))))


@pytest.fixture(scope="module")
def built() -> torchpruner.ONNXGraph:
    graph = torchpruner.ONNXGraph(ConvBnNet().eval())
    graph.build_graph((torch.zeros(1, 3, 32, 32),))
    return graph


@pytest.fixture
def pruning(built: Any) -> tuple[nn.Module, Any]:
    """A fresh copy of the analysed model, and its graph."""
    return copy.deepcopy(built.model), built


class TestModule:
    def test_modules_are_visited(self, built: Any) -> None:
        # 通过名称索引 获取pytorch模型 conv模块对应的Module
        conv_module = built.modules["self.conv"]
        assert conv_module.name == "self.conv"
        # 遍历所有的模块
        for key in built.modules:
            module = built.modules[key]
            assert str(module)

    def test_cut_analysis_of_an_attribute(self, built: Any) -> None:
        conv_module = built.modules["self.conv"]
        result = conv_module.cut_analysis("weight", index=[0, 1, 2, 3], dim=0)
        assert list(result) == ["terminal", "iner", "operator"]
        assert result["terminal"]["self.conv.weight"][0].tolist() == [0, 1, 2, 3]
        assert result["terminal"]["self.conv2.weight"][1].tolist() == [0, 1, 2, 3]
        assert set(result["terminal"]) == {
            "self.conv.weight",
            "self.conv.bias",
            *(f"self.bn.{name}" for name in ("weight", "bias", "running_mean", "running_var")),
            "self.conv2.weight",
        }
        assert result["operator"] == {}

    def test_cut_analysis_of_a_dotted_attribute(self, built: Any) -> None:
        result = built.modules["self"].cut_analysis("bn.weight", index=[0], dim=0)
        assert result["terminal"]["self.conv.weight"][0].tolist() == [0]

    def test_nn_object_tells_the_class(self, built: Any) -> None:
        results = []
        for key in built.modules:
            module = built.modules[key]
            if isinstance(module.nn_object, nn.Conv2d):
                results.append(module.cut_analysis("weight", index=[0, 1, 2, 3], dim=0))
        assert len(results) == 2

    def test_sub_modules_by_attribute(self, built: Any) -> None:
        conv_module = built.modules["self.conv"]
        conv_weight_module = conv_module.sub_modules["weight"]
        assert conv_weight_module.terminal_node is built.nodes["self.conv.weight"]

    def test_data_and_operators_of_a_module(self, built: Any) -> None:
        conv_module = built.modules["self.conv"]
        assert [operator.type for operator in conv_module.operators] == ["Conv"]
        assert conv_module.in_data == list(built.inputs.values())
        assert conv_module.out_data[0] in built.modules["self.bn"].in_data


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


# --- DataNode ---------------------------------------------------------------------------------


class TestDataNode:
    def test_nodes_are_reached_through_the_graph_a_module_and_an_operator(self, built: Any) -> None:
        # 使用属性nodes访问对象
        for key in built.nodes:
            assert str(built.nodes[key]).startswith("%")
        conv_module = built.modules["self.conv"]
        # 访问卷积的权重对应的DataNode
        weight_node = conv_module.sub_modules["weight"].terminal_node
        # 访问卷积模块的输入 X:
        input_node = conv_module.in_data[0]
        # 访问卷及模块的输出 Y:
        output_node = conv_module.out_data[0]
        # 获取类型为卷积的第一个Operator
        conv_operator = None
        for key in built.operators:
            operator = built.operators[key]
            if operator.type == "Conv":
                conv_operator = operator
                break
        # 获取其三组输入DataNode,分别代表了X,weight,bias
        X, weight, bias = conv_operator.in_data
        # 获取输出DataNode,代表Y
        Y = conv_operator.out_data[0]
        assert (X, weight, Y) == (input_node, weight_node, output_node)
        assert bias.name == "self.conv.bias"

    def test_what_a_node_tells(self, built: Any) -> None:
        node = built.nodes["self.conv.weight"]
        assert str(node) == "%self.conv.weight: Float(16, 3, 3, 3)"
        assert isinstance(node.data, np.ndarray) and node.graph is built
        assert node.size() == (16, 3, 3, 3) and node.type() == "Float"
        assert node.is_terminal() and not node.is_input() and not node.is_output()
        assert node.in_operator is None
        assert [operator.type for operator in node.out_operators] == ["Conv"]
        (graph_input,) = built.inputs.values()
        (graph_output,) = built.outputs.values()
        assert graph_input.is_input() and graph_output.is_output()
        assert graph_output.out_operators == []

    def test_cut_analysis_of_a_node(self, built: Any) -> None:
        result = built.nodes["self.conv.weight"].cut_analysis(index=[0], dim=0)
        assert result == built.modules["self.conv"].cut_analysis("weight", index=[0], dim=0)


# --- Operator ---------------------------------------------------------------------------------


class TestOperator:
    def test_operators_are_reached_through_the_graph_a_module_and_a_node(self, built: Any) -> None:
        # 使用属性nodes访问对象 (the manual says operators.nodes[key])
        for key in built.operators:
            assert built.operators[key].name == key
        conv_operator = built.modules["self.conv"].operators[0]
        for key in built.nodes:
            node = built.nodes[key]
            assert node.in_operator is None or node in node.in_operator.out_data
            assert all(node in operator.in_data for operator in node.out_operators)
        assert conv_operator.name == "self.conv.Conv"

    def test_what_an_operator_tells(self, built: Any) -> None:
        operator = built.operators["self.conv.Conv"]
        assert operator.type == "Conv" and operator.protocal.lower() == "onnx"
        assert operator.params["group"] == 1
        assert operator.flops() > 0

    def test_analysis_of_one_operator(self, built: Any) -> None:
        operator = built.operators["self.conv.Conv"]
        output = operator.out_data[0]
        mask = torchpruner.Mask(output.size()).set_mask([0, 2], 1)
        masks, _ = operator.analysis(output, mask)
        assert masks["self.conv.weight"].indices(0).tolist() == [0, 2]
        assert masks["self.conv.bias"].indices(0).tolist() == [0, 2]

    def test_rank_fill_shape_and_fill_value(self, built: Any) -> None:
        operator = built.operators["self.conv.Conv"]
        output = operator.out_data[0]
        assert operator.rank(output) == ("out", 0)
        assert operator.rank(operator.in_data[1]) == ("in", 1)
        operator.fill_shape()
        assert output.size() == (1, 16, 32, 32)
        operator.fill_value()
        assert output.data.shape == (1, 16, 32, 32)


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
