//! One protected host with its prober and its moatd: what faults are made in, and what tells whether it is as wanted again.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::backend::Backend;
use super::flows::TCP_DENIED;
use super::moat::{Moat, PATIENCE, POLL, Programs};
use super::net::Net;
use super::policy::{self, Form};
use super::prober::Prober;
use super::tally::Tally;

/// Everything about one backend.
pub struct World {
    /// Which iptables.
    pub backend: Backend,
    /// The namespaces.
    pub net: Net,
    /// moatd.
    pub moat: Moat,
    /// The prober.
    pub prober: Prober,
    /// Whether there is time: many repetitions, and faults that take long.
    pub long: bool,
    /// How often the present fault was made.
    pub tries: u64,
    /// Descriptors of a quiet moatd.
    pub descriptors: usize,
    /// What the kernel holds of moat when all is well.
    pub wanted: Vec<String>,
    settings: &'static str,
    random: u64,
}

impl World {
    /// Builds the hosts and writes the policy; moatd does not run yet.
    ///
    /// # Errors
    /// What could not be made.
    pub fn new(
        number: usize,
        backend: Backend,
        programs: Programs,
        long: bool,
    ) -> Result<World, String> {
        let net = Net::new(number)?;
        let moat = Moat::new(net.host(), programs)?;
        let prober = Prober::start(&net, !long)?;
        let seed = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(1, |d| d.as_nanos() as u64);
        let world = World {
            backend,
            net,
            moat,
            prober,
            long,
            tries: 0,
            descriptors: 0,
            wanted: Vec::new(),
            // The short run has no time to wait for the usual checks of what nobody tells of.
            settings: if long {
                ""
            } else {
                "iptablesRefreshInterval = \"2s\""
            },
            random: seed | 1,
        };
        world.write_all()?;
        Ok(world)
    }

    /// Starts moatd for the first time and notes what the kernel holds then.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn first_start(&mut self) -> Result<(), String> {
        self.moat.start()?;
        self.wait(|w| w.is_in_force())?;
        self.wanted = self.kernel()?;
        self.descriptors = self.moat.descriptors()?;
        self.moat.take_log();
        Ok(())
    }

    /// Settings and policies as they are when all is well.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write_all(&self) -> Result<(), String> {
        self.write_settings("")?;
        self.moat.policy("main.yaml", &policy::main(Form::Usual))?;
        self.moat.policy("bulk.yaml", &policy::bulk(0))
    }

    /// The usual settings and these lines.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_settings(&self, lines: &str) -> Result<(), String> {
        self.moat
            .settings(self.backend, &format!("{}\n{lines}", self.settings))
    }

    /// Begins to count. A connection that a hole let in would stay known, and later ones of the same ports pass as parts of it.
    pub fn begin(&mut self) {
        self.tries = 0;
        let port = TCP_DENIED.to_string();
        for family in ["ipv4", "ipv6"] {
            // It is an error that there is none.
            let _ = self.net.host().run(
                "conntrack",
                &["-D", "-f", family, "-p", "tcp", "--dport", &port],
            );
        }
        self.moat.take_log();
        self.prober.begin();
    }

    /// `short` repetitions, or `long` ones where there is time.
    pub fn times(&self, short: u64, long: u64) -> u64 {
        if self.long { long } else { short }
    }

    /// A random number below this.
    pub fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below.max(1)
    }

    /// Sleeps for a random time below this.
    pub fn sleep_random(&mut self, milliseconds: u64) {
        let time = self.random(milliseconds);
        thread::sleep(Duration::from_millis(time));
    }

    /// Writes a policy file and waits until moatd has taken it.
    ///
    /// # Errors
    /// It does not.
    pub fn change(&self, file: &str, text: &str) -> Result<(), String> {
        let before = self.moat.generation()?;
        self.moat.policy(file, text)?;
        self.wait_for_generation(before)
    }

    /// Waits for a later host policy than that.
    ///
    /// # Errors
    /// None comes.
    pub fn wait_for_generation(&self, before: u64) -> Result<(), String> {
        self.wait(|w| match w.moat.generation()? > before {
            true => Ok(()),
            false => Err(format!("no policy after generation {before}")),
        })
    }

    /// Waits until `status` says that the host is degraded, with one of these words.
    ///
    /// # Errors
    /// It does not say so.
    pub fn wait_degraded(&self, words: &[&str]) -> Result<(), String> {
        self.wait(|w| {
            let status = w.moat.status()?;
            let said = status["degraded"].to_string();
            let named =
                status["state"] == "degraded" && words.iter().any(|word| said.contains(word));
            match named {
                true => Ok(()),
                false => Err(format!(
                    "status does not name the fault ({}): {} {said}",
                    words.join(" or "),
                    status["state"]
                )),
            }
        })
    }

    /// Whether `status` is either enforcing, or degraded with one of these words: faults that need not harm.
    ///
    /// # Errors
    /// It is neither.
    pub fn enforcing_or(&self, words: &[&str]) -> Result<(), String> {
        self.wait(|w| {
            let status = w.moat.status()?;
            let said = status["degraded"].to_string();
            match status["state"] == "enforcing" || words.iter().any(|word| said.contains(word)) {
                true => Ok(()),
                false => Err(format!(
                    "degraded for another reason than {}: {said}",
                    words.join(" or ")
                )),
            }
        })
    }

    /// Asks until there is no objection; the last one if there is no end of them.
    ///
    /// # Errors
    /// The last objection.
    pub fn wait(&self, holds: impl Fn(&World) -> Result<(), String>) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        loop {
            match holds(self) {
                Ok(()) => return Ok(()),
                Err(objection) if Instant::now() >= end => return Err(objection),
                Err(_) => thread::sleep(POLL),
            }
        }
    }

    /// After a fault that went wrong: begins anew, so that it does not spoil the next one.
    ///
    /// # Errors
    /// That does not work either.
    pub fn recover(&mut self) -> Result<(), String> {
        self.moat.kill();
        self.moat.environment.clear();
        self.moat.mend_tools()?;
        let dir = self.moat.path("policy.d");
        // What it was is not known; it is made anew below.
        let _ = fs::remove_dir_all(&dir).or_else(|_| fs::remove_file(&dir));
        fs::create_dir(&dir).map_err(|e| e.to_string())?;
        empty(&self.moat.path("state"))?;
        self.write_all()?;
        if self
            .net
            .host()
            .run("ip", &["link", "show", "eth0"])
            .is_err()
        {
            self.net.add_outer_link()?;
        }
        for chain in ["INPUT", "OUTPUT", "FORWARD"] {
            for family in ["iptables", "ip6tables"] {
                self.net.host().run(
                    &format!("{family}-{}", self.backend.name()),
                    &["-w", "-F", chain],
                )?;
            }
        }
        self.moat.start()?;
        self.settle().map(drop)
    }

    /// Sends for a while with nothing enforced: what is lost then is lost by the harness.
    ///
    /// # Errors
    /// Something is lost.
    pub fn check_harness(&self, time: Duration) -> Result<Tally, String> {
        self.prober.begin();
        thread::sleep(time);
        let tally = self.prober.end(true);
        match tally.is_right() {
            true => Ok(tally),
            false => Err(format!(
                "the harness itself loses packets: {} {:?}",
                tally.cut, tally.send_error
            )),
        }
    }
}

/// Removes what is in a directory.
fn empty(dir: &Path) -> Result<(), String> {
    let entries = fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        fs::remove_file(&path)
            .or_else(|_| fs::remove_dir_all(&path))
            .map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}
