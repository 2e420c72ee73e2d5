#!/usr/bin/env bash
# A throw-away Slurm on this machine, for the tests: cluster.sh up|down FOLDER
#
# A controller, accounting (slurmdbd over MariaDB) and two virtual nodes, gpu1 and gpu2, all on the loopback. Each node
# claims 4 processors and 2 GPUs, which are character devices that nobody reads; each GPU can be shared by 4 jobs. What is
# submitted to the partition urgent cancels what runs in gpu.
# Needs root, and Debian's slurmctld, slurmd, slurm-client, slurm-wlm-basic-plugins, slurmdbd, slurm-wlm-mysql-plugin,
# munge and mariadb-server. Everything it writes is in FOLDER, but for links from /etc/slurm: the inner srun of a job
# reads its configuration there and nowhere else.
set -euo pipefail
command=$1 folder=$2
nodes="gpu1 gpu2"
links="slurm.conf gres.conf cgroup.conf slurmdbd.conf"

say() { printf 'cluster: %s\n' "$*" >&2; }

# Whether the process of a pid file lives. One that was killed may stay as a zombie: in a container nobody reaps it.
alive() {
	local pid
	[ -s "$1" ] && pid=$(cat "$1" 2>/dev/null) && [ -r "/proc/$pid/stat" ] && [ "$(sed 's/.*) //' "/proc/$pid/stat" | cut -c1)" != Z ]
}

# wait_for SECONDS WHAT COMMAND...
wait_for() {
	local end=$((SECONDS + $1)) what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		if [ $SECONDS -ge $end ]; then
			say "$what did not come up; the ends of the logs:"
			tail -n 5 "$folder"/log/*.log >&2
			exit 1
		fi
		sleep .1
	done
}

configure() {
	local host id
	host=$(hostname -s)
	mkdir -p "$folder"/{state,spool-gpu1,spool-gpu2,log,run,devices,mysql,socket} /etc/slurm
	chmod 755 "$folder" "$folder"/*
	for id in 0 1; do
		[ -e "$folder/devices/gpu$id" ] || mknod "$folder/devices/gpu$id" c 1 3 2>/dev/null || : >"$folder/devices/gpu$id"
	done
	cat >"$folder/slurm.conf" <<-END
		ClusterName=test
		SlurmctldHost=$host(127.0.0.1)
		SlurmctldPort=16817
		SlurmUser=root
		SlurmdUser=root
		AuthType=auth/munge
		AuthInfo=socket=$folder/run/munge.socket
		CredType=cred/munge
		StateSaveLocation=$folder/state
		SlurmctldPidFile=$folder/run/slurmctld.pid
		SlurmctldLogFile=$folder/log/slurmctld.log
		SlurmdPidFile=$folder/run/slurmd-%n.pid
		SlurmdLogFile=$folder/log/slurmd-%n.log
		SlurmdSpoolDir=$folder/spool-%n
		SlurmdParameters=config_overrides
		ProctrackType=proctrack/linuxproc
		TaskPlugin=task/none
		JobAcctGatherType=jobacct_gather/linux
		JobAcctGatherFrequency=30
		MpiDefault=none
		SwitchType=switch/none
		ReturnToService=2
		SelectType=select/cons_tres
		SelectTypeParameters=CR_CPU_Memory
		SchedulerType=sched/backfill
		SchedulerParameters=batch_sched_delay=0,sched_interval=5,bf_interval=5,sched_min_interval=200000
		MinJobAge=300
		KillWait=20
		UnkillableStepTimeout=60
		SlurmctldTimeout=60
		SlurmdTimeout=60
		MessageTimeout=60
		InactiveLimit=0
		GresTypes=gpu,shard
		AccountingStorageType=accounting_storage/slurmdbd
		AccountingStorageHost=127.0.0.1
		AccountingStoragePort=16819
		AccountingStoragePass=$folder/run/munge.socket
		AccountingStoreFlags=job_comment
		AccountingStorageTRES=gres/gpu,gres/shard
		NodeName=gpu1 NodeHostname=$host NodeAddr=127.0.0.1 Port=16821 CPUs=4 RealMemory=64000 Gres=gpu:h100:2,shard:8 State=UNKNOWN
		NodeName=gpu2 NodeHostname=$host NodeAddr=127.0.0.1 Port=16822 CPUs=4 RealMemory=64000 Gres=gpu:h100:2,shard:8 State=UNKNOWN
		PreemptType=preempt/partition_prio
		PreemptMode=CANCEL
		PartitionName=gpu Nodes=gpu1,gpu2 Default=YES MaxTime=7-0 PriorityTier=1 State=UP
		PartitionName=urgent Nodes=gpu1,gpu2 MaxTime=7-0 PriorityTier=10 PreemptMode=OFF State=UP
	END
	for id in $nodes; do
		printf 'NodeName=%s Name=gpu Type=h100 File=%s/devices/gpu[0-1]\n' "$id" "$folder"
		printf 'NodeName=%s Name=shard Count=8\n' "$id"
	done >"$folder/gres.conf"
	printf 'CgroupAutomount=no\nConstrainCores=no\nConstrainRAMSpace=no\n' >"$folder/cgroup.conf"
	cat >"$folder/slurmdbd.conf" <<-END
		AuthType=auth/munge
		AuthInfo=socket=$folder/run/munge.socket
		DbdHost=$host
		DbdAddr=127.0.0.1
		DbdPort=16819
		SlurmUser=root
		LogFile=$folder/log/slurmdbd.log
		PidFile=$folder/run/slurmdbd.pid
		StorageType=accounting_storage/mysql
		StorageHost=127.0.0.1
		StoragePort=13306
		StorageUser=slurm
		StoragePass=slurm
		StorageLoc=slurm_acct_db
	END
	chmod 600 "$folder/slurmdbd.conf"
	for file in $links; do
		if [ -e "/etc/slurm/$file" ] && [ ! -L "/etc/slurm/$file" ]; then
			say "there is a Slurm here already: /etc/slurm/$file is no link of mine"
			exit 1
		fi
		ln -sfn "$folder/$file" "/etc/slurm/$file"
	done
}

start_munge() {
	alive "$folder/run/munged.pid" && return
	dd if=/dev/urandom bs=1 count=1024 of="$folder/run/munge.key" 2>/dev/null
	chmod 400 "$folder/run/munge.key"
	munged --force --socket="$folder/run/munge.socket" --key-file="$folder/run/munge.key" \
		--pid-file="$folder/run/munged.pid" --log-file="$folder/log/munged.log" --seed-file="$folder/run/munged.seed"
	wait_for 20 munged bash -c "munge --socket=$folder/run/munge.socket -n | unmunge --socket=$folder/run/munge.socket"
}

start_accounting() {
	alive "$folder/run/slurmdbd.pid" && return
	chown mysql:mysql "$folder/mysql" "$folder/socket"
	[ -d "$folder/mysql/mysql" ] ||
		mariadb-install-db --no-defaults --user=mysql --datadir="$folder/mysql" --skip-test-db >"$folder/log/install.log" 2>&1
	setsid mariadbd --no-defaults --user=mysql --datadir="$folder/mysql" --socket="$folder/socket/mysql.sock" \
		--bind-address=127.0.0.1 --port=13306 --pid-file="$folder/socket/mariadb.pid" --innodb-buffer-pool-size=64M \
		--innodb-log-file-size=32M --innodb-lock-wait-timeout=900 >"$folder/log/mariadb.log" 2>&1 </dev/null &
	echo $! >"$folder/run/mariadb.pid"
	wait_for 60 mariadb mariadb-admin --no-defaults --socket="$folder/socket/mysql.sock" -u root ping
	mariadb --no-defaults --socket="$folder/socket/mysql.sock" -u root -e \
		"CREATE USER IF NOT EXISTS slurm@'127.0.0.1' IDENTIFIED BY 'slurm'; GRANT ALL ON slurm_acct_db.* TO slurm@'127.0.0.1';"
	slurmdbd
	wait_for 60 slurmdbd timeout 5 sacctmgr -n list cluster
	for words in "cluster test" "account lab Cluster=test" "user root Account=lab"; do
		timeout 20 sacctmgr -i add $words >/dev/null 2>&1 || true
	done
}

start_slurm() {
	local node
	alive "$folder/run/slurmctld.pid" || slurmctld
	wait_for 60 slurmctld bash -c "timeout 5 scontrol ping | grep -q UP"
	for node in $nodes; do
		alive "$folder/run/slurmd-$node.pid" || slurmd -N "$node"
	done
	wait_for 60 "two nodes" bash -c '[ "$(timeout 5 sinfo -h -N -p gpu -t idle,mix,alloc -o %n | wc -l)" = 2 ]'
	timeout 60 srun --gpus=1 true
}

# stop PIDFILE NAME: by its pid file, if the process still has that name.
stop() {
	local pid
	alive "$1" && pid=$(cat "$1" 2>/dev/null) && grep -q "^$2" "/proc/$pid/comm" || return 0
	kill "$pid"
	for _ in $(seq 100); do
		alive "$1" || return 0
		sleep .1
	done
	kill -9 "$pid"
}

case $command in
up)
	configure
	start_munge
	start_accounting
	start_slurm
	;;
down)
	timeout 10 scancel --user=root 2>/dev/null || true
	for node in $nodes; do stop "$folder/run/slurmd-$node.pid" slurmd; done
	stop "$folder/run/slurmctld.pid" slurmctld
	stop "$folder/run/slurmdbd.pid" slurmdbd
	stop "$folder/run/mariadb.pid" mariadbd
	stop "$folder/run/munged.pid" munged
	for file in $links; do
		case "$(readlink "/etc/slurm/$file")" in "$folder"/*) rm "/etc/slurm/$file" ;; esac
	done
	;;
*)
	say "up or down, got $command"
	exit 2
	;;
esac
