#!/usr/bin/env bash
# A sweep as a Slurm job, on one node or several. Submit it in the clone, which all nodes must see at the same path:
#
#   sbatch deploy/slurm.sh --space mine.yaml --data /shared/images
#   NAME=mine TRACKING_URI=http://mlflow.example:5000 sbatch --nodes=4 deploy/slurm.sh --space mine.yaml
#
# runs/ is made in the folder it is submitted in; REPSIM names the clone where that is another one.
# Two minutes before its time is up Slurm sends USR1: the sweep stops cleanly (exit 130) and the job queues again. What
# starts then, or after a node failed or the job was preempted, goes on with runs/NAME. `scancel` ends it for good.
#SBATCH --job-name=sweep
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --mem=32G
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=sweep-%j.log
set -euo pipefail

readonly INTERRUPTED=130
readonly JOIN_SECONDS=120
name=${NAME:-slurm-$SLURM_JOB_ID}
nodes=${SLURM_JOB_NUM_NODES:-1}
code=${REPSIM:-$SLURM_SUBMIT_DIR}
cpus=${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}
gpus=${SLURM_GPUS_ON_NODE:-0}
cd "$SLURM_SUBMIT_DIR"
if [[ -f $code/.venv/bin/activate ]]; then
    # shellcheck disable=SC1091  # made by whoever installed it
    source "$code/.venv/bin/activate"
fi
export OMP_NUM_THREADS=1 # each trial sets its own; this is for what starts before

driver=""
requeue=no
# shellcheck disable=SC2329  # the traps call it
stop() {
    [[ $1 == USR1 ]] && requeue=yes
    [[ -z $driver ]] || kill -s "$1" "$driver" 2>/dev/null || true
}
trap 'stop USR1' USR1
trap 'stop TERM' TERM

# Ray on all nodes of the job, behind a token that only this job knows; sets `address`. Ray would count the cores of the
# whole machine, so it is told what the job has of it.
start_cluster() {
    local ip head port share
    RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
    export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
    ip=$(python -c 'import ray; print(ray.util.get_node_ip_address())')
    read -r head < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
    port=$((20000 + SLURM_JOB_ID % 20000)) # two jobs may share a node
    address=$ip:$port
    share=(--num-cpus="$cpus" --num-gpus="$gpus" --disable-usage-stats)
    ray start --head --node-ip-address="$ip" --port="$port" --include-dashboard=false "${share[@]}"
    srun --overlap --nodes=$((nodes - 1)) --ntasks=$((nodes - 1)) --ntasks-per-node=1 --exclude="$head" \
        ray start --address="$address" --block "${share[@]}" &
    wait_for_nodes
}

wait_for_nodes() {
    local deadline=$((SECONDS + JOIN_SECONDS)) here=0
    while ((SECONDS < deadline)); do
        here=$(ray status --address="$address" 2>/dev/null | grep -c '^ *[0-9]* node_' || true)
        ((here >= nodes)) && return 0
        sleep 1
    done
    printf '%s\n' "only $here of $nodes nodes joined within $JOIN_SECONDS s: going on with those" >&2
}

both=()
if [[ -n ${TRACKING_URI:-} ]]; then
    both+=(--tracking-uri "$TRACKING_URI")
fi
if ((nodes > 1)); then
    start_cluster
    both+=(--address "$address")
fi
status=$INTERRUPTED
if [[ $requeue == no ]]; then # else time was up while the nodes joined
    "$code/deploy/start_or_resume.sh" "$name" "$@" -- "${both[@]}" &
    driver=$!
    status=0
fi
while [[ -n $driver ]]; do
    wait "$driver" && status=0 || status=$?
    kill -0 "$driver" 2>/dev/null || driver="" # a signal ends `wait`, not the sweep
done
# 130, or killed by the signal itself where Python was still importing
if [[ $requeue == yes ]] && ((status > 128)); then
    printf '%s\n' "time is up: queueing again, to go on with $name"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
