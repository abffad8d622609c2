//! Tools that are missing, fail, hang, lie or are locked out.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use moat::compile::{Table, Target};
use moat::dataplane::iptables::Iptables;
use moat::dataplane::{CommandError, Dataplane, DataplaneError, Tools};

use super::site::{Site, on_both, port_rule};

const REAL: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A driver whose tool with this ending, of IPv4, is a script.
fn with_script(site: &Site, dir: &Path, tool: &str, script: &str, patience: u64) -> Iptables {
    let name = format!("iptables-{}-{tool}", site.backend);
    let script = script.replace("REAL", &format!("PATH={REAL} {name}"));
    let file = dir.join(name);
    fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{REAL}", dir.display());
    Iptables::with_tools(
        site.backend,
        8,
        Tools::new(path, Duration::from_millis(patience)),
    )
}

/// What a driver with such a tool says when it is given a policy.
fn said(site: &mut Site, tool: &str, script: &str) -> DataplaneError {
    let dir = tempfile::tempdir().unwrap();
    let mut dataplane = with_script(site, dir.path(), tool, script, 1000);
    let wanted = site.all();
    dataplane.apply(&wanted).unwrap_err()
}

#[test]
fn a_tool_that_does_not_work_changes_nothing_and_is_quoted() {
    on_both(|site| {
        site.apply_all();
        let rules = site.rules();
        site.rules.push(port_rule(4, Target::Drop));
        for (tool, script, words) in [
            ("save", "sleep 1000", "did not end"),
            ("restore", "sleep 1000", "did not end"),
            ("save", "yes -- '-A INPUT -j DROP'", "no answer"),
            ("save", "echo '*filter'; echo ':INPUT ACCEPT'", "no answer"),
            ("save", "echo moo", "no answer"),
            ("save", "echo 'out of luck' >&2; exit 1", "out of luck"),
            ("restore", "echo 'out of luck' >&2; exit 1", "out of luck"),
            ("save", "kill -9 $$", "signal: 9"),
            (
                "restore",
                "echo 'Another app is currently holding the xtables lock.' >&2; exit 4",
                "xtables lock",
            ),
        ] {
            let error = said(site, tool, script).to_string();
            assert!(error.contains(words), "{tool} {script}: {error}");
            assert_eq!(site.rules(), rules, "{tool} {script}");
        }
        site.apply_all();
        assert_eq!(site.chain("moat-INPUT").len(), 3);
    });
}

#[test]
fn missing_tools_are_named() {
    on_both(|site| {
        let tools = Tools::new("/nonexistent", Duration::from_secs(1));
        let wanted = site.all();
        let result = Iptables::with_tools(site.backend, 8, tools).apply(&wanted);
        let error = result.unwrap_err();
        assert!(error.is_missing_tool(), "{error}");
    });
}

#[test]
fn a_tool_that_sees_no_rules_makes_nothing_worse() {
    on_both(|site| {
        site.apply_all();
        let rules = site.rules();
        let dir = tempfile::tempdir().unwrap();
        let mut dataplane = with_script(site, dir.path(), "save", "exit 0", 5000);
        let wanted = site.all();
        dataplane.apply(&wanted).unwrap();
        let mut now = site.rules();
        // What cannot be seen is put there a second time.
        now.dedup();
        assert_eq!(now, rules);
        site.verify();
        assert_eq!(site.rules(), rules);
    });
}

#[test]
fn a_failure_that_passes_is_tried_again() {
    on_both(|site| {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("failed");
        let script = format!(
            "test -e {0} && exec REAL \"$@\"\ntouch {0}\necho 'not now' >&2\nexit 1",
            mark.display()
        )
        .replace("exec REAL", "exec env REAL");
        let mut dataplane = with_script(site, dir.path(), "restore", &script, 5000);
        let wanted = site.all();
        let applied = dataplane.apply(&wanted).unwrap();
        assert!(mark.exists() && applied.refused.is_empty());
        assert!(site.verify().changed.is_nothing());
    });
}

#[test]
fn a_table_that_the_kernel_lacks_does_not_stop_the_others() {
    on_both(|site| {
        let dir = tempfile::tempdir().unwrap();
        let script = "input=$(cat)\ncase $input in *'*raw'*) echo 'no table raw' >&2; exit 1;; esac\n\
            printf '%s\\n' \"$input\" | REAL \"$@\"";
        let script = script.replace("REAL", "env REAL");
        site.dataplane = with_script(site, dir.path(), "restore", &script, 5000);
        site.chains
            .push((Table::Raw, "moat-raw", vec![port_rule(1, Target::Drop)]));
        let wanted = site.all();
        let applied = site.dataplane.apply(&wanted).unwrap();
        let refused: Vec<_> = applied.refused.iter().collect();
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert_eq!(refused[0].0, "table raw of IPv4");
        assert!(refused[0].1.contains("no table raw"));
        assert_eq!(site.chain("moat-INPUT").len(), 2);
        // A chain does not leave for a table where it cannot be.
        let chain = ("moat-moves", vec![port_rule(7, Target::Drop)]);
        site.chains.push((Table::Mangle, chain.0, chain.1.clone()));
        site.apply_all();
        site.chains.pop();
        site.chains.push((Table::Raw, chain.0, chain.1));
        site.apply_all();
        assert_eq!(site.chain("moat-moves").len(), 1);
    });
}

#[test]
fn errors_keep_their_kind() {
    on_both(|site| {
        let error = said(site, "save", "sleep 1000");
        assert!(matches!(
            error,
            DataplaneError::Command(CommandError::Hung { .. })
        ));
        assert!(error.is_final());
    });
}
