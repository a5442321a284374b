#!/bin/bash
# All that runs on a node; on the first, the controller too.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
install -d -o munge /run/munge
runuser -u munge -- munged --force
if [ "$(hostname)" = node1 ]; then
    install -d -o slurm /var/lib/slurm/slurmctld
    slurmctld -D &
fi
exec slurmd -D
