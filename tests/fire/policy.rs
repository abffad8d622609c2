//! The policy of the protected host, and other ways to write it that mean the same for every flow of the prober.
//!
//! It uses every table, sets of both families, and enough of rules and sets beside them that an apply takes its time.

use std::fmt::Write;

/// How the policy is written; all of them judge the probed flows alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The usual one.
    Usual,
    /// What one policy decided is decided by another, elsewhere in the order; a set has another name and more members.
    Moved,
}

const ENDPOINT: &str = "
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: eth0, labels: {role: web}}
spec: {node: h, interfaceName: eth0, expectedIPs: [10.1.0.1, 'fd01::1']}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: early}
spec:
  selector: role == 'web'
  order: 10
  preDNAT: true
  applyOnForward: true
  ingress: [{action: Deny, protocol: UDP, destination: {ports: [1009]}}]
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: untracked}
spec:
  selector: role == 'web'
  order: 10
  doNotTrack: true
  applyOnForward: true
  types: [Ingress, Egress]
  ingress: [{action: Allow, protocol: UDP, destination: {ports: [1053]}}]
  egress: [{action: Allow, protocol: UDP, source: {ports: [1053]}}]
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: forward}
spec:
  selector: role == 'web'
  order: 30
  applyOnForward: true
  types: [Ingress]
  ingress: [{action: Allow, protocol: UDP, destination: {ports: [1010]}}]
";

const ENEMY_RULE: &str = "{action: Deny, source: {selector: group == 'enemies'}}";
const FRIEND_RULE: &str = "{action: Allow, protocol: UDP, source: {selector: group == 'friends'}, destination: {ports: [1001]}}";
const PORT_RULE: &str = "{action: Allow, protocol: UDP, destination: {ports: [1002, 1003, 1009]}}";
const TCP_RULE: &str = "{action: Allow, protocol: TCP, destination: {ports: [1080]}}";
const EGRESS_RULE: &str = "{action: Allow, protocol: UDP, destination: {ports: [1020, 2001]}}";

/// Policies beside those that judge the probed flows, and rules and members in each.
const BULK: usize = 10;
const BULK_MEMBERS: usize = 40;

/// What judges the probed flows.
pub fn main(form: Form) -> String {
    let friends = ["10.1.0.2/32", "fd01::2/128"];
    let enemies = ["10.1.0.9/32", "fd01::9/128"];
    let parts = match form {
        Form::Usual => [
            set("friends", "friends", &friends),
            set("enemies", "enemies", &enemies),
            policy("enemies", 40, &[ENEMY_RULE], &[]),
            policy(
                "web",
                50,
                &[FRIEND_RULE, PORT_RULE, TCP_RULE],
                &[EGRESS_RULE],
            ),
        ],
        Form::Moved => [
            set(
                "comrades",
                "friends",
                &[friends[0], friends[1], "10.9.0.0/24", "fd09::/64"],
            ),
            set(
                "enemies",
                "enemies",
                &[enemies[0], enemies[1], "10.8.0.0/24"],
            ),
            policy("services", 20, &[ENEMY_RULE, TCP_RULE, PORT_RULE], &[]),
            policy("web", 60, &[FRIEND_RULE], &[EGRESS_RULE]),
        ],
    };
    format!("{ENDPOINT}{}", parts.concat())
}

/// Rules and sets that no probed flow asks about. Another `salt` makes all of them different.
pub fn bulk(salt: usize) -> String {
    let mut text = String::new();
    for number in 0..BULK {
        let nets: Vec<String> = (0..BULK_MEMBERS)
            .map(|i| format!("10.{}.{}.{i}/32", 20 + number, salt % 200))
            .collect();
        let nets: Vec<&str> = nets.iter().map(String::as_str).collect();
        let group = format!("bulk{number}");
        text += &set(&group, &group, &nets);
        let rules: Vec<String> = (0..BULK)
            .map(|i| {
                let port = 20_000 + (salt % 200) * 100 + number * BULK + i;
                format!("{{action: Allow, protocol: TCP, source: {{selector: group == '{group}'}}, destination: {{ports: [{port}]}}}}")
            })
            .collect();
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        text += &policy(&format!("bulk{number}"), 45, &rules, &[]);
    }
    text
}

/// One policy that no probed flow asks about.
pub fn beside(port: u16) -> String {
    let rule = format!("{{action: Allow, protocol: UDP, destination: {{ports: [{port}]}}}}");
    policy("beside", 35, &[&rule], &[])
}

/// A set in front of `---`, with a label for selectors.
pub fn set(name: &str, group: &str, nets: &[&str]) -> String {
    let mut list = String::new();
    for net in nets {
        let _ = write!(list, "'{net}', ");
    }
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\n\
         metadata: {{name: {name}, labels: {{group: {group}}}}}\nspec: {{nets: [{list}]}}\n"
    )
}

/// A policy of the host endpoint in front of `---`.
pub fn policy(name: &str, order: u32, ingress: &[&str], egress: &[&str]) -> String {
    let types = if egress.is_empty() {
        "Ingress"
    } else {
        "Ingress, Egress"
    };
    let list = |rules: &[&str]| {
        rules
            .iter()
            .map(|r| format!("  - {r}\n"))
            .collect::<String>()
    };
    let mut text = format!(
        "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: {name}}}\n\
         spec:\n  selector: role == 'web'\n  order: {order}\n  types: [{types}]\n  ingress:\n{}",
        list(ingress)
    );
    if !egress.is_empty() {
        text += &format!("  egress:\n{}", list(egress));
    }
    text
}
