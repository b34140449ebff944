#!/bin/sh
# Boots this machine's own systemd once more, in namespaces of its own, on a copy of the root file system that goes with it.
#
#   boot.sh FOLDER CONSOLE REPOSITORY PYTHON SITE-PACKAGES     systemd logs to the terminal CONSOLE; needs root
#
# /opt/viaduct is a virtual environment of that Python with the repository in it, and nothing is started but what is asked for.
set -eu
folder=$1 console=$2 repository=$3 python=$4 packages=$5
if [ "${6:-}" != inside ]; then
    mkdir "$folder/hierarchy"
    mount --make-rprivate /
    mount -t cgroup2 cgroup2 "$folder/hierarchy"
    mkdir "$folder/hierarchy/$(basename "$folder")"
    echo $$ >"$folder/hierarchy/$(basename "$folder")/cgroup.procs"
    exec unshare --mount --pid --fork --kill-child --cgroup --uts --ipc --net "$0" "$@" inside
fi
root=$folder/root
mkdir "$root" "$folder/own"
mount -t tmpfs -o mode=755 tmpfs "$folder/own"
mkdir "$folder/own/upper" "$folder/own/work"
mount -t overlay -o "lowerdir=/,upperdir=$folder/own/upper,workdir=$folder/own/work" overlay "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
touch "$root/dev/console"
mount --bind "$console" "$root/dev/console"
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/var/log"
# Units and generators of this machine are none of our business.
mount -t tmpfs -o mode=755 tmpfs "$root/etc/systemd/system"
mount -t tmpfs -o mode=755 tmpfs "$root/usr/lib/systemd/system-generators"
printf '[Unit]\nDescription=All that starts by itself\nWants=systemd-journald.service\n' >"$root/etc/systemd/system/trial.target"

mkdir -p "$root/opt/python" "$root/opt/source" "$root/opt/packages" "$root/opt/viaduct/bin"
mount --bind "$python" "$root/opt/python"
mount --bind "$repository" "$root/opt/source"
mount --bind "$packages" "$root/opt/packages"
version=$(basename "$(dirname "$packages")")
printf 'home = /opt/python/bin\n' >"$root/opt/viaduct/pyvenv.cfg"
ln -s "/opt/python/bin/$version" "$root/opt/viaduct/bin/python"
mkdir -p "$root/opt/viaduct/lib/$version/site-packages"
printf '/opt/packages\n/opt/source\n' >"$root/opt/viaduct/lib/$version/site-packages/viaduct.pth"
# A library that the interpreter looks for where it was built lies in root's home, which units cannot see.
mkdir -p "$root/etc/systemd/system.conf.d"
printf '[Manager]\nDefaultEnvironment=LD_LIBRARY_PATH=/opt/python/lib\n' >"$root/etc/systemd/system.conf.d/python.conf"

ip link set lo up
cd "$root"
mkdir before
pivot_root . before
umount -l /before
exec env -i container=other PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin LANG=C.UTF-8 \
    /lib/systemd/systemd --system --unit=trial.target --log-target=console --log-color=no --show-status=yes
