#!/usr/bin/env bash
# What recipes/gad/rayjob.yaml runs in the head's pod: waits for the nodes, checks the run, starts it.
#   bash on_kuberay.sh RUN_SCRIPT [Hydra overrides]
#   bash on_kuberay.sh --stop                          # the preStop hook: asks the run to save and end, and waits
# Tested with stand-ins for Python; NOT YET RUN ON KUBERNETES.

set -euo pipefail

# ---- user-adjustable ----
PYTHON=${PYTHON:-python3}
# all nodes of the cluster, the head with them
NNODES=${NNODES:-1}
NGPUS_PER_NODE=${NGPUS_PER_NODE:-8}
# seconds for all nodes to join: images are pulled meanwhile
JOIN_TIMEOUT_S=${JOIN_TIMEOUT_S:-1800}
# seconds that the hook waits for the step to end and to be saved
SAVE_TIMEOUT_S=${SAVE_TIMEOUT_S:-1020}
# ---- end user-adjustable ----

say() { echo "gad kuberay $(date '+%F %T'): $*"; }

: "${GAD_STOP_FILE:?set it in rayjob.yaml to a path on the shared volume}"
export GAD_STOP_FILE

# Beside the stop file: the run's answer; the hook's mark, so that a run that was taken away is not taken for one that a
# person ended; the end of this script.
answer=${GAD_STOP_FILE}.done
preempted=${GAD_STOP_FILE}.preempted
ended=${GAD_STOP_FILE}.ended

if [ "${1:-}" = --stop ]; then
    # Every pod has the hook, also when KubeRay deletes a cluster whose run is over: nobody would answer then.
    if [ -e "${ended}" ] || [ -e "${answer}" ]; then exit 0; fi
    # The first one asks, unless a person has.
    if [ ! -e "${GAD_STOP_FILE}" ]; then touch "${preempted}" "${GAD_STOP_FILE}"; fi
    for ((waited = 0; waited < SAVE_TIMEOUT_S; waited++)); do
        if [ -e "${answer}" ] || [ -e "${ended}" ] || [ ! -e "${GAD_STOP_FILE}" ]; then exit 0; fi
        sleep 1
    done
    exit 0
fi

if [ $# -lt 1 ] || [ ! -f "$1" ]; then
    say "usage: on_kuberay.sh RUN_SCRIPT [Hydra overrides]; no such file: ${1:-(none)}" >&2
    exit 2
fi
run_script=$1
shift
rm -f "${GAD_STOP_FILE}" "${answer}" "${preempted}" "${ended}"
trap 'touch "${ended}"' EXIT

# KubeRay sets it in the head's pod; ray job sets it for the entrypoint.
: "${RAY_ADDRESS:?start this by a RayJob, or set RAY_ADDRESS=HEAD_IP:6379}"
# For scripts in which some of the nodes do not train.
export CLUSTER_NNODES=${NNODES}
export NNODES NGPUS_PER_NODE PYTHON RAY_ADDRESS
"${PYTHON}" -m gad_verl.cli doctor --cluster "${RAY_ADDRESS}" --timeout "${JOIN_TIMEOUT_S}" \
    trainer.nnodes="${NNODES}" trainer.n_gpus_per_node="${NGPUS_PER_NODE}"
DRY_RUN=1 bash "${run_script}" "$@"
status=0
if [ -e "${preempted}" ]; then
    say "a pod is taken away before the run has begun: KubeRay tries again" >&2
    exit 75
fi
bash "${run_script}" "$@" || status=$?
# KubeRay tries again what failed alone. A run that came to its end in these minutes did not answer, and is done.
if [ "${status}" = 0 ] && [ -e "${preempted}" ] && [ -e "${answer}" ]; then
    say "the run saved because a pod was taken away: the next try goes on after that step"
    status=75
fi
say "the run ended with code ${status}"
exit "${status}"
