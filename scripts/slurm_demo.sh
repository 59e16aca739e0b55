#!/usr/bin/env bash
# A sweep on a real Slurm of one node with two slots, made here and taken down again:
# 8 tiny runs, of which one is killed in mid-run and requeued, and their table.
#
#     sudo PYTHON=.venv/bin/python scripts/slurm_demo.sh
#
# Needs root, Debian or Ubuntu, and the extra anomalyncd[cluster]; installs slurmctld, slurmd,
# slurm-client and munge if they are missing. Does not change an existing Slurm or munge:
# configuration, key, socket, ports and state are its own, in a temporary folder.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
KILLED=2 # the seed of the run that is killed, and of the second task of the array

die() { echo "error: $1" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die "Slurm's daemons need root; run it with sudo"
"$PYTHON" -c "import hydra_plugins.hydra_submitit_launcher.submitit_launcher, submitit" ||
  die "no Slurm launcher: $PYTHON -m pip install 'anomalyncd[cluster]', or set PYTHON=…"
missing=
for program in slurmctld slurmd srun munged; do
  command -v "$program" > /dev/null || missing=$program
done
if [ "$missing" ]; then
  apt-get update -qq
  # Their services would start at once, with a configuration that is not there.
  DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -qq -y --no-install-recommends \
    slurmctld slurmd slurm-client munge
fi

work=$(mktemp -d /tmp/slurm_demo.XXXXXX)
chmod 755 "$work"
export SLURM_CONF=$work/slurm.conf # from here on, no command can reach another Slurm
sweep=
log() { printf '\n[%3ds] %s\n' "$SECONDS" "$*"; }

cleanup() {
  status=$?
  [ "$status" = 0 ] || tail -n 20 "$work"/*.log "$work"/outputs/sweeps/*/slurm/*/*.err >&2 || true
  [ -z "$sweep" ] || kill "$sweep" 2> /dev/null || true
  scancel --quiet --me 2> /dev/null || true
  for _ in $(seq 20); do # the daemons wait for no job
    [ -z "$(squeue --noheader 2> /dev/null)" ] && break
    sleep 0.5
  done
  for daemon in slurmd slurmctld munged; do
    pid=$(cat "$work/$daemon.pid" 2> /dev/null) && kill "$pid" 2> /dev/null &&
      timeout 20 tail --pid="$pid" -f /dev/null || true
  done
  rm -rf "$work"
  log "Slurm is shut down, $work is removed"
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

host=$(hostname -s)
mkdir "$work/state" "$work/spool"
cat > "$work/slurm.conf" << CONF
ClusterName=demo
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=26817
SlurmdPort=26818
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits until its credential has expired: two minutes, were it not for this.
AuthInfo=socket=$work/munge.socket,cred_expire=5
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
JobRequeue=1
KillWait=2
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=4096 State=UNKNOWN
PartitionName=demo Nodes=$host Default=YES MaxTime=60 State=UP
CONF

log "one node, two slots: $(slurmctld -V)"
(umask 077 && head -c 1024 /dev/urandom > "$work/munge.key")
munged --force --key-file="$work/munge.key" --socket="$work/munge.socket" \
  --pid-file="$work/munged.pid" --log-file="$work/munged.log" --seed-file="$work/munge.seed"
slurmctld
slurmd
for _ in $(seq 60); do
  [ "$(sinfo --noheader --format=%t 2> /dev/null)" = idle ] && break
  sleep 0.5
done
sinfo

log "8 jobs"
export OMP_NUM_THREADS=1
# submitit asks sacct too, which needs a database; without, it complains and looks at files alone.
timeout 1200 "$PYTHON" train.py -m launcher=slurm "output_root=$work/outputs" seed=1,2,3,4,5,6,7,8 \
  hydra.launcher.{cpus_per_task=1,mem_gb=2,gpus_per_node=null,timeout_min=30} \
  detector=simulated base=none dataset.{train=1,good=4,per_class=4,combined=0} \
  backbone.image_size=64 train.{epochs=1500,hidden=64,bottleneck=16} tracker=none device=cpu > "$work/sweep.out" 2> "$work/sweep.log" &
sweep=$!

epoch() { # the epoch in a run's progress.json
  "$PYTHON" - "$work/outputs" "$1" << 'PY'
import json, pathlib, sys
found = pathlib.Path(sys.argv[1]).rglob(f"seed-{sys.argv[2]}/progress.json")
print(max((json.loads(path.read_text()).get("done", 0) for path in found), default=0))
PY
}
status() { "$PYTHON" scripts/status.py "$work/outputs" --once; }

until [ "$(epoch $KILLED)" -ge 5 ]; do
  kill -0 "$sweep" || die "the sweep ended before a job was in mid-run"
  sleep 0.5
done
array=$(squeue --noheader --format=%F | head -n 1)
log "seed $KILLED is at epoch $(epoch $KILLED): scontrol requeue ${array}_$((KILLED - 1))"
scontrol requeue "${array}_$((KILLED - 1))"
sleep 3
squeue --array
status

wait "$sweep"
sweep=
log "all jobs have ended"
grep -v '^submitit' "$work/sweep.out"
status
"$PYTHON" - "$work/outputs" "$KILLED" << 'PY'
import json, pathlib, sys
runs = {path.parent.name: json.loads(path.read_text())["resumed_after_epochs"]
        for path in pathlib.Path(sys.argv[1]).rglob("seed-*/metrics.json")}
print("resumed after epoch:", dict(sorted(runs.items())))
killed = runs[f"seed-{sys.argv[2]}"]
assert len(runs) == 8 and killed >= 5, "the killed run did not resume where it was"
PY
"$PYTHON" scripts/table.py "$work/outputs"
