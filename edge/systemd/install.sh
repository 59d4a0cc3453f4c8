#!/bin/sh
# Installs the agent on a device with systemd: install.sh AGENT.ZIP CLAIMS_FOLDER [APP.ZIP ...]
#   AGENT.ZIP      made by `mledgeops component agent`
#   CLAIMS_FOLDER  made by `mledgeops devices expect NAME`, with one NAME.json for this device
# May be repeated: an enrolled device keeps its certificate, and gets the new agent and the apps.
set -eu
fail() { echo "$1" >&2; exit 2; }
[ $# -ge 2 ] || fail "usage: install.sh AGENT.ZIP CLAIMS_FOLDER [APP.ZIP ...]"
root=${MLEDGEOPS_ROOT:-}                  # another root for a rehearsal, empty on a device
python=${MLEDGEOPS_PYTHON:-python3.11}
here=$(cd "$(dirname "$0")" && pwd)
agent=$1 claims=$2; shift 2
prefix=$root/opt/mledgeops home=$root/var/lib/mledgeops
[ -f "$agent" ] || fail "install.sh: $agent does not exist; mledgeops component agent makes it."
claim=$(find "$claims" -maxdepth 1 -name '*.json' ! -name trust.json | head -n 2)
[ "$(printf '%s' "$claim" | grep -c .)" = 1 ] \
  || fail "install.sh: $claims must hold one claim file, this device's."

# Installs only from the wheels in the zip, never from an index: a device may be offline.
pip_install() {
  "$prefix/venv/bin/pip" install --quiet --disable-pip-version-check --no-index --no-deps \
    --find-links "$prefix/wheels" -r "$prefix/wheels/requirements.txt" "$@"
}

[ -n "$root" ] || id mledgeops > /dev/null 2>&1 || useradd --system \
  --home-dir /var/lib/mledgeops --shell /usr/sbin/nologin mledgeops
mkdir -p "$prefix" "$home/apps" "$home/claim"
rm -rf "$prefix/wheels" && mkdir "$prefix/wheels"
"$python" -m zipfile -e "$agent" "$prefix/wheels"
"$python" -m venv --clear "$prefix/venv"
pip_install
"$prefix/venv/bin/pip" uninstall --quiet --yes setuptools
rm -rf "$prefix/wheels"
for app in "$@"; do
  name=$(basename "$app" .zip)
  wheels=${app%.zip}-wheels.zip             # the app's own dependencies, when it has any
  if [ -f "$wheels" ] && [ ! -d "$home/apps/.site/$name" ]; then
    rm -rf "$prefix/wheels" && "$python" -m zipfile -e "$wheels" "$prefix/wheels"
    pip_install --target "$home/apps/.site/$name"
    rm -rf "$prefix/wheels"
  fi
  [ -d "$home/apps/$name" ] && continue
  # The rename comes last, so that the agent never sees half of an app.
  rm -rf "$home/apps/.$name" && "$python" -m zipfile -e "$app" "$home/apps/.$name"
  mv "$home/apps/.$name" "$home/apps/$name"
done
cp "$claims/current/device.pem.crt" "$claims/current/private.pem.key" "$home/claim/"
cp "$claim" "$home/claim/claim.json"
cp "$claims/ca.pem" "$home/ca.pem"
cp "$claims/trust.json" "$home/trust.json"
chmod 700 "$home" && chmod 600 "$home/claim/private.pem.key" "$home/claim/claim.json"
[ -n "$root" ] || chown -R mledgeops: "$home"
if [ ! -f "$home/device.json" ]; then
  enrol="$prefix/venv/bin/mledgeops-enrol"
  if [ -n "$root" ]; then "$enrol" "$home/claim/claim.json"
  else su -s /bin/sh mledgeops -c "$enrol $home/claim/claim.json"; fi
fi
rm -rf "$home/claim"                      # a claim is valid once
if [ -z "$root" ]; then
  cp "$here/mledgeops-agent.service" /etc/systemd/system/
  systemctl daemon-reload && systemctl enable --now mledgeops-agent
fi
echo "installed in $prefix; state in $home"
