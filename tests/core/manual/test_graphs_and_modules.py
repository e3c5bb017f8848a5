"""The manual's chapters on graphs, modules, data nodes and operators: every code block runs."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

import torchpruner_core as torchpruner
import torchpruner_core.operator

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
