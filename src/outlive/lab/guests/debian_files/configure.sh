#!/bin/sh
# Makes a bare Debian a guest for trials, from outside, at the end of its making: $1 is its root folder, $2 a folder
# that gets PostgreSQL's client programs with their libraries. Everyone may enter, since it lives in a lab's network.
set -eu
root=$1
client=$2
in_guest() { chroot "$root" "$@"; }
as_postgres() { chroot "$root" su postgres -s /bin/sh -c "$1"; }

echo guest >"$root/etc/hostname"
printf '127.0.0.1 localhost guest\n' >"$root/etc/hosts"
printf '/dev/vda / ext4 defaults,noatime 0 0\n' >"$root/etc/fstab"
in_guest passwd -d root

mkdir -p "$root/etc/systemd/system/serial-getty@ttyS0.service.d" "$root/etc/systemd/journald.conf.d"
cat >"$root/etc/systemd/system/serial-getty@ttyS0.service.d/login.conf" <<'END'
[Service]
ExecStart=
ExecStart=-/sbin/agetty --autologin root --keep-baud 115200,57600,38400,9600 %I vt220
END
printf '[Journal]\nStorage=volatile\nForwardToConsole=no\n' >"$root/etc/systemd/journald.conf.d/lab.conf"
# What an emulated machine has no use for, and which takes its time to start.
for unit in getty@tty1.service dpkg-db-backup.timer fstrim.timer remote-fs.target systemd-pstore.service \
    systemd-journal-flush.service systemd-binfmt.service systemd-update-utmp.service systemd-update-utmp-runlevel.service \
    systemd-random-seed.service systemd-sysusers.service systemd-firstboot.service systemd-machine-id-commit.service \
    systemd-repart.service systemd-networkd.service systemd-tmpfiles-clean.timer systemd-modules-load.service \
    systemd-pcrphase.service systemd-pcrphase-sysinit.service cryptsetup.target veritysetup.target \
    integritysetup.target dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
    sys-kernel-config.mount sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount modprobe@drm.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

cat >>"$root/etc/redis/redis.conf" <<'END'
bind 0.0.0.0
protected-mode no
appendonly yes
appendfsync always
save ""
END

# Exactly one version and one cluster are there: those that the packages made.
settings=$(echo "$root"/etc/postgresql/*/main)
cat >>"$settings/postgresql.conf" <<'END'
listen_addresses = '*'
synchronous_commit = on
fsync = on
full_page_writes = on
shared_buffers = 48MB
jit = off
END
printf 'local all all trust\nhost all all 0.0.0.0/0 trust\n' >"$settings/pg_hba.conf"

# It listens on no network while it is prepared here, which is this machine's.
version=$(basename "$(dirname "$settings")")
programs=/usr/lib/postgresql/$version/bin
in_guest pg_ctlcluster "$version" main start -o "-c listen_addresses=''"
stop() { in_guest pg_ctlcluster "$version" main stop -m fast; }
trap stop EXIT
as_postgres "createdb bench"
as_postgres "$programs/pgbench -i -q -s 2 bench"
as_postgres "psql -q -v ON_ERROR_STOP=1 bench" <<'END'
CREATE EXTENSION amcheck;
CREATE TABLE ledger (run bigint NOT NULL, client int NOT NULL, number bigint NOT NULL, at timestamptz DEFAULT now());
CREATE INDEX ON ledger (run, client, number);
CHECKPOINT;
END
trap - EXIT
stop

mkdir -p "$client"
for name in pgbench psql pg_amcheck; do
    cp "$root$programs/$name" "$client/"
    in_guest ldd "$programs/$name" | sed -n 's/.*=> \(\/[^ ]*\).*/\1/p; s/^[[:space:]]*\(\/[^ ]*ld-linux[^ ]*\) .*/\1/p' |
        while read -r library; do cp -L "$root$library" "$client/"; done
done

# Needed by nobody here, and half of what would have to be copied for each machine.
rm -rf "$root"/usr/lib/*/libLLVM* "$root"/usr/lib/*/libz3* "$root"/usr/lib/postgresql/*/lib/bitcode \
    "$root"/usr/lib/udev/hwdb.bin "$root"/usr/lib/udev/hwdb.d "$root"/usr/share/i18n "$root"/var/lib/apt/lists \
    "$root"/var/cache/apt "$root"/var/log/*.log
