#!/bin/sh
# From a trained checkpoint to a proven INT8 bundle, on any machine: `make demo` runs this.
set -eu
cd "$(dirname "$0")/.."
data=examples/fashion_mnist
rm -rf demo && mkdir demo

if [ -t 1 ]; then bold='\033[1m' plain='\033[0m'; else bold='' plain=''; fi
say() { printf "\n$bold%s$plain\n" "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }

say '1. Export a trained checkpoint to INT8: one graph, lowered for each engine, engines built where this machine can'
run ran-export $data/compact.safetensors --precision int8 --calibration-data $data/calibration.npz -o demo/fashion.ran

say '2. Run it on image files, without PyTorch'
run ran-infer demo/fashion.ran $data/images --top-k 2

say '3. Prove it: every engine against its golden logits and against PyTorch, on 512 test images'
run ran-validate demo/fashion.ran --data $data/test.npz --reference $data/compact.safetensors --backend all --max-drop 2 --report demo/report.html

say 'Done'
cat <<'EOF'
demo/fashion.ran     the bundle: copy it to a device; ran-validate demo/fashion.ran proves it there, without data
demo/report.html     the accuracy report: open it in a browser

Now with your own network:
  ran-export best.pth --calibration-data train/ -o mine.ran     a RAN checkpoint and a few hundred typical images
  ran-validate mine.ran --data val/ --max-drop 0.5              what INT8 costs, with a 95 % interval
  ran-build mine.ran --backend tensorrt                         on a Jetson or GPU server: the engine for that very GPU
EOF
