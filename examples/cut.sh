#!/usr/bin/env bash
# The service with curl alone.
set -euo pipefail
# --8<-- [start:example]
url=${TORCHPRUNER_URL:-http://127.0.0.1:8000}   # of `make serve`
python3 -c "import torch, torchvision, torchpruner_core as tp; open('resnet18.onnx', 'wb').write(
  tp.export_onnx(torchvision.models.resnet18().eval(), (torch.rand(1, 3, 224, 224),)))"  # or any other
json() { python3 -c "import json, sys; print(json.load(sys.stdin)$1)"; }
post() { curl -fsS "$url/v1/models/$model/$1" -H 'Content-Type: application/json' -d "$2"; }

model=$(curl -fsS --data-binary @resnet18.onnx "$url/v1/models?name=resnet18" | json "['id']")
curl -fsS "$url/v1/models/$model?wait=60"           # state: ready
echo; curl -fsS "$url/v1/models/$model/groups?limit=3"
echo; post cut-analysis '{"node": "self.conv1.weight", "index": [0, 1, 2, 3], "dim": 0}'
plan=$(post plans '{"budget": {"flops": "50%"}, "rules": {"round_to": 8}}' | json "['id']")
echo; curl -fsS "$url/v1/plans/$plan?wait=60" | json "['costs']"
# --8<-- [end:example]
