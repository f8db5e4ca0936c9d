#!/usr/bin/env bash
# A Slurm of its own on this machine, to try sweep.py --slurm: a controller and two nodes, n1 and
# n2, of one CPU each. It needs Debian's slurm-wlm and munge, and root.
#
#   tests/slurm.sh start DIR    # a new folder; then: export SLURM_CONF=DIR/slurm.conf
#   tests/slurm.sh kill DIR n1  # as if its power went: the node's daemon and all of its jobs
#   tests/slurm.sh node DIR n1  # start the node again
#   tests/slurm.sh stop DIR
set -eu
PATH=$PATH:/usr/sbin:/sbin
dir=$(realpath -m "$2")
export SLURM_CONF=$dir/slurm.conf

kill_node() { # the daemon, then the steps, which left it, then what those run
  kill -9 "$(cat "$dir/$1.pid")" 2>/dev/null || true
  steps=() tasks=()
  for process in $(grep -slzx "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ); do
    grep -sqzx "SLURMD_NODENAME=$1" "$process" || continue
    process=${process%/environ} parent=$(awk '/^PPid/ {print $2}' "$process/status")
    tasks+=("${process#/proc/}")
    [ "$(cat "/proc/$parent/comm")" != slurmstepd ] || steps+=("$parent")
  done
  kill -9 "${steps[@]}" "${tasks[@]}" 2>/dev/null || true
}

start() {
  mkdir -p "$dir"/{state,munge,spool.n1,spool.n2}
  chmod 755 "$dir" "$dir/munge"
  head -c 128 /dev/urandom >"$dir/munge.key"
  chmod 400 "$dir/munge.key"
  host=$(hostname -s) port=$((20000 + $$ % 4000 * 3))
  cat >"$SLURM_CONF" <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
AuthInfo=socket=$dir/munge/socket
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool.%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/%n.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SlurmdTimeout=10
ReturnToService=2
KillWait=2
MailProg=/bin/true
SchedulerParameters=sched_min_interval=100000
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=1
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=1
PartitionName=all Nodes=ALL Default=YES State=UP
END
  echo "CgroupPlugin=cgroup/v1" >"$dir/cgroup.conf" # looked at, though nothing here uses one
  munged --force --key-file="$dir/munge.key" --socket="$dir/munge/socket" \
    --pid-file="$dir/munged.pid" --log-file="$dir/munged.log" --seed-file="$dir/munge/seed"
  slurmctld
  slurmd -N n1
  slurmd -N n2
  for _ in $(seq 100); do
    [ "$(sinfo -h -N -o %T 2>/dev/null | grep -c idle)" = 2 ] && return
    sleep 0.2
  done
  sinfo -N
  tail -n 5 "$dir"/*.log
  exit 1
}

case $1 in
  start) start ;;
  node) slurmd -N "$3" ;;
  kill) kill_node "$3" ;;
  stop)
    scancel -u root || true
    kill_node n1
    kill_node n2
    for daemon in slurmctld munged; do
      daemon=$(cat "$dir/$daemon.pid")
      kill "$daemon"
      while grep -q '^State:.[^Z]' "/proc/$daemon/status" 2>/dev/null; do sleep 0.1; done
    done
    ;;
esac
