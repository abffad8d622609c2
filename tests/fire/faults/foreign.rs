//! Other programs and people in the kernel's tables.

use std::fs::File;
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::super::backend::Backend;
use super::super::policy::{self, Form};
use super::super::world::World;
use super::Promise::{Never, Repaired};
use super::{Fault, fault, only};

pub const FAULTS: &[Fault] = &[
    fault(
        "iptables -F",
        Repaired,
        |w| ruin(w, &["-F"]),
        "another program flushes the filter table",
    ),
    fault(
        "-F of our chains",
        Repaired,
        flush_ours,
        "each of our filter chains is flushed",
    ),
    fault(
        "iptables -X",
        Never,
        delete_chains,
        "another program deletes chains, which the kernel refuses as long as they are in use",
    ),
    fault(
        "iptables -F -X",
        Repaired,
        |w| ruin(w, &["-F", "-X"]),
        "another program flushes the filter table and deletes its chains",
    ),
    fault(
        "-t raw -F",
        Repaired,
        |w| ruin(w, &["-t raw -F"]),
        "another program flushes the raw table",
    ),
    fault(
        "-t mangle -F",
        Repaired,
        |w| ruin(w, &["-t mangle -F"]),
        "another program flushes the mangle table",
    ),
    only(
        Backend::Nft,
        fault(
            "nft flush ruleset",
            Repaired,
            flush_ruleset,
            "another program flushes all of nf_tables",
        ),
    ),
    fault(
        "ipset flush",
        Repaired,
        |w| ipset(w, &["flush"]),
        "another program empties all IP sets",
    ),
    fault(
        "ipset destroy",
        Never,
        destroy_sets,
        "another program destroys IP sets, which the kernel refuses as long as they are in use",
    ),
    fault(
        "-F and ipset destroy",
        Repaired,
        flush_and_destroy,
        "another program flushes the rules and then destroys the sets",
    ),
    fault(
        "members removed",
        Repaired,
        members_removed,
        "somebody removes members from our sets",
    ),
    fault(
        "members added",
        Repaired,
        members_added,
        "somebody adds members to our sets",
    ),
    fault(
        "ACCEPT before ours",
        Repaired,
        |w| beside(w, "-I", "ACCEPT"),
        "somebody inserts rules before our jump",
    ),
    fault(
        "ACCEPT after ours",
        Never,
        |w| beside(w, "-A", "ACCEPT"),
        "somebody appends a rule that accepts everything",
    ),
    fault(
        "DROP after ours",
        Never,
        |w| beside(w, "-A", "DROP"),
        "somebody appends a rule that drops everything",
    ),
    fault(
        "ACCEPT among ours",
        Repaired,
        |w| inside(w, "ACCEPT"),
        "somebody inserts a rule that accepts into our chains",
    ),
    fault(
        "DROP among ours",
        Repaired,
        |w| inside(w, "DROP"),
        "somebody inserts a rule that drops into our chains",
    ),
    fault(
        "jump removed",
        Repaired,
        |w| ruin(w, &["-D INPUT 1"]),
        "somebody removes our jump",
    ),
    fault(
        "rules removed",
        Repaired,
        rules_removed,
        "somebody removes the first rule of each of our chains",
    ),
    only(
        Backend::Legacy,
        fault(
            "lock held",
            Never,
            lock_held,
            "another program holds the lock of the tables for seconds while policy changes",
        ),
    ),
];

/// The lock file of this run, never that of the machine.
pub const LOCK: &str = "XTABLES_LOCKFILE";

/// Runs commands in both families, several times, each time after all is well again.
fn ruin(w: &mut World, commands: &[&str]) -> Result<(), String> {
    repeat(w, |w| commands.iter().try_for_each(|c| both(w, c)))
}

fn repeat(w: &mut World, make: impl Fn(&World) -> Result<(), String>) -> Result<(), String> {
    for turn in 0..w.times(1, 5) {
        if turn > 0 {
            w.settle()?;
        }
        make(w)?;
        w.tries += 1;
    }
    Ok(())
}

fn both(w: &World, command: &str) -> Result<(), String> {
    w.backend
        .host_rule(w.net.host(), &format!("ip46tables {command}"))
}

fn families(w: &World) -> [String; 2] {
    ["iptables", "ip6tables"].map(|f| format!("{f}-{}", w.backend.name()))
}

/// Our chains of the filter table.
fn our_chains(w: &World, tool: &str) -> Result<Vec<String>, String> {
    let text = w.net.host().run(tool, &["-w", "-S"])?;
    let chains = text.lines().filter_map(|l| l.strip_prefix("-N moat-"));
    Ok(chains.map(|c| format!("moat-{c}")).collect())
}

fn our_sets(w: &World) -> Result<Vec<String>, String> {
    let text = w.net.host().run("ipset", &["list", "-n"])?;
    Ok(text
        .lines()
        .filter(|l| l.starts_with("moat"))
        .map(str::to_owned)
        .collect())
}

/// Runs a command for each of our chains that it may concern; those that it no longer concerns are left.
fn each_chain(w: &World, arguments: impl Fn(&str) -> Vec<String>) -> Result<(), String> {
    for tool in families(w) {
        for chain in our_chains(w, &tool)? {
            let arguments = arguments(&chain);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            // moat may have removed or repaired the chain meanwhile.
            let _ = w.net.host().run(&tool, &arguments);
        }
    }
    Ok(())
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn flush_ours(w: &mut World) -> Result<(), String> {
    repeat(w, |w| {
        each_chain(w, |chain| words(&format!("-w -F {chain}")))
    })
}

fn delete_chains(w: &mut World) -> Result<(), String> {
    repeat(w, |w| {
        for tool in families(w) {
            // It deletes what it can.
            let _ = w.net.host().run(&tool, &["-w", "-X"]);
        }
        each_chain(w, |chain| words(&format!("-w -X {chain}")))
    })
}

fn rules_removed(w: &mut World) -> Result<(), String> {
    repeat(w, |w| {
        each_chain(w, |chain| words(&format!("-w -D {chain} 1")))
    })
}

fn inside(w: &mut World, verdict: &str) -> Result<(), String> {
    repeat(w, |w| {
        each_chain(w, |chain| words(&format!("-w -I {chain} -j {verdict}")))
    })
}

fn flush_ruleset(w: &mut World) -> Result<(), String> {
    repeat(w, |w| {
        w.net.host().run("nft", &["flush", "ruleset"]).map(drop)
    })
}

fn ipset(w: &mut World, arguments: &[&str]) -> Result<(), String> {
    repeat(w, |w| w.net.host().run("ipset", arguments).map(drop))
}

fn destroy_sets(w: &mut World) -> Result<(), String> {
    repeat(w, |w| {
        for set in our_sets(w)? {
            let _ = w.net.host().run("ipset", &["destroy", &set]);
        }
        // It is refused, or the kernel would not be as wanted.
        let _ = w.net.host().run("ipset", &["destroy"]);
        Ok(())
    })
}

fn flush_and_destroy(w: &mut World) -> Result<(), String> {
    repeat(w, |w| {
        both(w, "-F")?;
        both(w, "-t raw -F")?;
        both(w, "-t mangle -F")?;
        for set in our_sets(w)? {
            // nf_tables lets go of them in its own time; moat may be faster.
            let _ = w.net.host().run("ipset", &["destroy", &set]);
        }
        Ok(())
    })
}

fn members_removed(w: &mut World) -> Result<(), String> {
    repeat(w, |w| {
        let saved = w.net.host().run("ipset", &["save"])?;
        for line in saved.lines().filter(|l| l.starts_with("add moat")).take(20) {
            let words: Vec<&str> = line.split(' ').collect();
            w.net.host().run("ipset", &["del", words[1], words[2]])?;
        }
        let own = ["10.1.0.2", "10.1.0.9", "fd01::2", "fd01::9"];
        for line in saved.lines().filter(|l| own.iter().any(|a| l.ends_with(a))) {
            let words: Vec<&str> = line.split(' ').collect();
            let _ = w.net.host().run("ipset", &["del", words[1], words[2]]);
        }
        Ok(())
    })
}

fn members_added(w: &mut World) -> Result<(), String> {
    repeat(w, |w| {
        for set in our_sets(w)? {
            for address in ["10.1.0.3", "fd01::3", "10.1.0.3,udp:1001"] {
                // Those that fit the set.
                let _ = w.net.host().run("ipset", &["add", &set, address]);
            }
        }
        Ok(())
    })
}

fn beside(w: &mut World, how: &str, verdict: &str) -> Result<(), String> {
    let rule = |how: &str, chain: &str| format!("{how} {chain} -p udp -j {verdict}");
    repeat(w, |w| {
        for chain in ["INPUT", "OUTPUT", "FORWARD"] {
            both(w, &rule(how, chain))?;
        }
        let settled = w.settle();
        for chain in ["INPUT", "OUTPUT", "FORWARD"] {
            both(w, &rule("-D", chain))?;
        }
        settled.map(drop)
    })
}

fn lock_held(w: &mut World) -> Result<(), String> {
    let path = std::env::var(LOCK).map_err(|e| format!("{LOCK}: {e}"))?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| format!("{path}: {e}"))?;
    for turn in 0..w.times(1, 4) {
        flock(&file, FlockOperation::LockExclusive).map_err(|e| e.to_string())?;
        w.moat
            .policy("bulk.yaml", &policy::bulk(turn as usize + 40))?;
        w.moat.policy("main.yaml", &policy::main(Form::Moved))?;
        // The last time is longer than moat waits for the lock.
        thread::sleep(Duration::from_millis(if turn < 3 { 2_500 } else { 25_000 }));
        flock(&file, FlockOperation::Unlock).map_err(|e| e.to_string())?;
        w.write_all()?;
        w.tries += 1;
    }
    Ok(())
}
