#!/bin/sh
# A scan as two Slurm job arrays, each merged by a small job:
#
#   SBATCH_PARTITION=gpu sh examples/slurm_array.sh 64 /shared/many meta-llama/Llama-3.1-70B --text corpus.jsonl --tokens all
#
# First the number of shards, then a folder that all nodes see, then model and options of `rectilinear scan`. The options
# of sbatch (partition, GPUs, time) are taken from the environment, as SBATCH_* and SLURM_*. A shard whose node is taken
# away is queued again, and goes on from what it last kept; one that failed is run again by its own line, and the merge
# that waits for it names it.
set -eu
shards=$1 out=$2
shift 2
mkdir -p "$out/logs"

quoted=
for word in "$@"; do
  quoted="$quoted '$(printf %s "$word" | sed "s/'/'\\\\''/g")'"
done
scan="rectilinear scan$quoted --force --resume --shard \$SLURM_ARRAY_TASK_ID/$shards"

fit=$(sbatch --parsable --requeue --array="1-$shards" --open-mode=append --output="$out/logs/%x-%a.log" --job-name=fit \
  --wrap="$scan --out $out/fit-\$SLURM_ARRAY_TASK_ID")
maps=$(sbatch --parsable --dependency="afterok:$fit" --output="$out/logs/%x.log" --job-name=maps \
  --wrap="rectilinear merge $out/fit-* --out $out/fit --force")
heldout=$(sbatch --parsable --requeue --dependency="afterok:$maps" --array="1-$shards" --open-mode=append \
  --output="$out/logs/%x-%a.log" --job-name=heldout --wrap="$scan --maps $out/fit --out $out/heldout-\$SLURM_ARRAY_TASK_ID")
sbatch --parsable --dependency="afterok:$heldout" --output="$out/logs/%x.log" --job-name=scan \
  --wrap="rectilinear merge $out/fit $out/heldout-* --out $out/scan --force"
