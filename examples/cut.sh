#!/usr/bin/env bash
# The service with curl alone: examples/cut.sh http://127.0.0.1:8000 model.onnx self.conv1.weight
set -euo pipefail
# --8<-- [start:example]
url=$1 file=$2 node=$3   # http://127.0.0.1:8000 resnet50.onnx self.conv1.weight
json() { python3 -c "import json, sys; print(json.load(sys.stdin)$1)"; }

model=$(curl -fsS --data-binary @"$file" "$url/v1/models?name=mine" | json "['id']")
curl -fsS "$url/v1/models/$model?wait=60"           # state: ready
echo; curl -fsS "$url/v1/models/$model/groups?limit=3"
echo; curl -fsS "$url/v1/models/$model/cut-analysis" -H 'Content-Type: application/json' \
  -d "{\"node\": \"$node\", \"index\": [0, 1, 2, 3], \"dim\": 0}"
# --8<-- [end:example]
