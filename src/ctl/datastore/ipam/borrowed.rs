//! `moatctl ipam show --show-borrowed`.

use super::block::Block;
use super::show::boxed;

const TITLES: [&str; 6] = [
    "IP",
    "BORROWING-NODE",
    "BLOCK",
    "BLOCK OWNER",
    "TYPE",
    "ALLOCATED-TO",
];

/// Addresses that another host than that of the block has.
pub fn table(blocks: &[Block]) -> String {
    let (mut rows, mut unknown) = (Vec::new(), 0);
    for block in blocks {
        let owner = block.host().unwrap_or_default();
        for (ip, attributes) in block.uses() {
            let text = |name: &str| attributes["secondary"][name].as_str();
            let Some(node) = text("node") else {
                unknown += 1;
                continue;
            };
            let (kind, user) = match text("pod") {
                Some(pod) => (
                    "pod",
                    format!("{}/{pod}", text("namespace").unwrap_or_default()),
                ),
                None => (text("type").unwrap_or_default(), String::new()),
            };
            let (ip, net) = (ip.to_string(), block.net.to_string());
            let row = [&ip, node, &net, owner, kind, &user].map(str::to_owned);
            rows.extend((node != owner).then(|| row.to_vec()));
        }
    }
    let table = boxed(&TITLES, &rows);
    match unknown {
        0 => table,
        n => format!(
            "{table}\n\nNote: found {n} IP allocations without an explicit node association. Unable to determine if they are borrowed."
        ),
    }
}
