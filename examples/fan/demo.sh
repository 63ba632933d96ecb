#!/bin/sh
# The main job from nothing, each command shown before it runs: train two versions of the fan
# model, build the base once, build both releases, and see what the second one costs a fleet.
#
#     make demo                       from the checkout
#     examples/fan/demo.sh FOLDER     with mlpack on PATH or in .venv
set -eu

checkout="$(cd "$(dirname "$0")/../.." && pwd)"
folder="${1:-demo}"
PATH="$checkout/.venv/bin:$PATH"
export PATH

say() { printf '\n# %s\n' "$*"; }
show() {
    printf '\n$ %s\n' "$*"
    "$@"
}

if [ -e "$folder" ]; then
    if [ ! -e "$folder/.mlpack-demo" ]; then
        echo "error: $folder exists and is not a demo's folder" >&2
        exit 1
    fi
    rm -rf "$folder"
fi
mkdir -p "$folder"
touch "$folder/.mlpack-demo"
cd "$folder"

say "A project: settings, a scoring script, requirements."
show mlpack init --template fan fan
cd fan

say "The first version of the model, from simulated sensor readings."
show python train.py
show mlpack register fan.onnx --metrics metrics.json

say "The stable base, once: Debian's Python, onnxruntime, numpy, the scoring server."
show mlpack base build
show mlpack build fan:1

say "The same network trained again with more readings: version 2."
show python train.py --retrain
show mlpack register fan.onnx --metrics metrics.json
show mlpack build fan:2

say "What a device that runs version 1 fetches for version 2, layer by layer."
show mlpack diff fan:1 fan:2

say "Bytes and money, for this fleet and for 1,000 and 100,000 devices, beside the usual build."
show mlpack report fan:2 --from fan:1

say "The same with the tariff the story began with."
show mlpack report fan:2 --from fan:1 --tariff origin-bundle
