#!/usr/bin/env bash
# The command line: on a file here, then through a service.
set -euo pipefail
# --8<-- [start:example]
python3 -c "import torch, torchvision, torchpruner_core as tp; open('resnet18.onnx', 'wb').write(
  tp.export_onnx(torchvision.models.resnet18().eval(), (torch.rand(1, 3, 224, 224),)))"  # or any other
torchpruner prune resnet18.onnx --flops 50% --round-to 8 -o half.onnx   # here, without a service

torchpruner upload resnet18.onnx   # its shapes, to the service of `make serve` or TORCHPRUNER_URL
torchpruner plan resnet18 --flops 50% --round-to 8 --protect fc --save plan.json
torchpruner derive resnet18 --cut plan.json --name half
torchpruner models
# --8<-- [end:example]
