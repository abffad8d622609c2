# The examples for configuration management, with the real programs.

ANSIBLE_VERSION=2.16.14

# The playbook in a container with the package: first run changed, second run unchanged, check mode touches nothing.
automation() {
    HOST=bookworm MANAGER=apt
    host_begin
    apt_built
    host_root bookworm python3 python3-venv python3-apt
    python3 -m pip download --quiet --only-binary :all: --python-version 3.11 --dest "$WORK/root/opt/wheels" "ansible-core==$ANSIBLE_VERSION"
    host_on
    apt_publish 0.1.0
    check 'install' pm install 0.1.0
    check 'ansible-core from the Python registry' inside sh -c 'python3 -m venv /opt/ansible && /opt/ansible/bin/pip install --quiet --no-index --find-links /opt/wheels ansible-core'
    cp -r docs/automation/ansible "$WORK/root/opt/playbook"
    check 'check mode says changed' playbook --check 'changed=[1-9]'
    check 'check mode touches nothing' inside sh -c '! ls /etc/moat/policy.d/* /etc/moat/moat.d/*'
    check 'first run changes' playbook 'changed=[1-9]'
    check 'policy is in force' wait_rule 'dports\? 80,443'
    check 'second run changes nothing' playbook 'changed=0'
    sed -i 's/ports: \[80, 443\]/ports: [80, http, -1]/' "$WORK/root/opt/playbook/web.yaml.j2"
    check 'an invalid policy is refused and nothing replaced' refused
    check 'cloud-init: the policy is valid' cloud_init
    echo "tests/packages automation: everything passed in $SECONDS s"
}

# playbook [OPTION] PATTERN: runs it, and looks for a pattern in its last line.
playbook() {
    inside env HOME=/root LC_ALL=C.UTF-8 /opt/ansible/bin/ansible-playbook "${@:1:$#-1}" -c local -i localhost, /opt/playbook/moat.yaml | tee "$WORK/play"
    grep -E "ok=.*${*: -1}.*failed=0" "$WORK/play"
}

wait_rule() {
    local i
    for ((i = 0; i < 100; i++)); do
        ! kernel_rules | grep -q -- "$1" || return 0
        sleep 0.2
    done
    return 1
}

refused() {
    [[ $(playbook 'changed=0' 2>&1 || true) == *'failed to validate'* ]]
    inside grep -q 'ports: \[80, 443\]' /etc/moat/policy.d/web.yaml
}

# As cloud-init renders it.
cloud_init() {
    cp docs/automation/cloud-init.yaml "$WORK/root/opt/"
    inside /opt/ansible/bin/python - <<'PY'
import jinja2, yaml
text = jinja2.Template(open("/opt/cloud-init.yaml").read()).render(v1={"local_hostname": "web1"})
assert text.startswith("## template: jinja\n#cloud-config\n")
for file in yaml.safe_load(text)["write_files"]:
    open("/tmp/cloud-init-policy", "w").write(file["content"])
PY
    inside moatctl validate --strict --node web1 /tmp/cloud-init-policy
}
