//! What the daemon counts and measures, in the Prometheus text format. Felix's names for the same are in docs/metrics.md.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// One label with its value.
type Label = [(&'static str, String); 1];
/// A number of seconds or of things.
type Number = Gauge<f64, AtomicU64>;

/// All metrics. Counting is cheap; nothing is computed before somebody asks.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    applies: Family<Label, Counter>,
    apply_seconds: Histogram,
    calculation_seconds: Histogram,
    lag_seconds: Histogram,
    repaired: Family<Label, Counter>,
    repairs: Counter,
    connections_removed: Counter,
    set_members: Family<Label, Gauge>,
    gauges: Gauges,
}

/// What is read when somebody asks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Number of the host policy in force.
    pub generation: u64,
    /// Whether the first policy is in force.
    pub ready: bool,
    /// Things that are wrong.
    pub degraded: usize,
    /// Endpoints of this host.
    pub endpoints: usize,
    /// Policies that select them.
    pub policies: usize,
    /// Resources in force.
    pub resources: usize,
    /// Age of the snapshot, if there is one.
    pub snapshot_age: Option<Duration>,
    /// Members of IP sets by name of the set.
    pub sets: Vec<(String, usize)>,
}

#[derive(Debug, Default)]
struct Gauges {
    generation: Gauge,
    ready: Gauge,
    degraded: Gauge,
    endpoints: Gauge,
    policies: Gauge,
    resources: Gauge,
    sets: Gauge,
    snapshot_age: Number,
    memory: Gauge,
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new() -> Metrics {
        // From 50 microseconds to 27 minutes.
        let times = || Histogram::new(exponential_buckets(0.000_05, 4.0, 13));
        let mut metrics = Metrics {
            registry: Registry::with_prefix("moat"),
            applies: Family::default(),
            apply_seconds: times(),
            calculation_seconds: times(),
            lag_seconds: times(),
            repaired: Family::default(),
            repairs: Counter::default(),
            connections_removed: Counter::default(),
            set_members: Family::default(),
            gauges: Gauges::default(),
        };
        metrics.register_work();
        metrics.register_state();
        metrics
    }

    fn register_work(&mut self) {
        let r = &mut self.registry;
        let help = "Changes written to the kernel, by result";
        r.register("applies", help, self.applies.clone());
        let help = "Time from the decision to write to the last write";
        r.register_with_unit("apply", help, Unit::Seconds, self.apply_seconds.clone());
        let help = "Time to calculate and compile the host policy after a change";
        let calculation = self.calculation_seconds.clone();
        r.register_with_unit("calculation", help, Unit::Seconds, calculation);
        let help = "Time from the notice of a change to its last write to the kernel";
        r.register_with_unit("event_lag", help, Unit::Seconds, self.lag_seconds.clone());
        let help = "Times that somebody else had changed what is moat's in the kernel";
        r.register("drift_repairs", help, self.repairs.clone());
        let help = "Rules, sets and members that somebody else had changed and moat repaired";
        r.register("drift_repaired", help, self.repaired.clone());
        let help = "Connections that a changed policy denied and that were cut";
        r.register(
            "connections_removed",
            help,
            self.connections_removed.clone(),
        );
    }

    fn register_state(&mut self) {
        let (r, g) = (&mut self.registry, &self.gauges);
        let help = "Number of the host policy in force";
        r.register("generation", help, g.generation.clone());
        let help = "1 as soon as the first policy is in force";
        r.register("ready", help, g.ready.clone());
        let help = "Objects and tools with problems";
        r.register("degraded_objects", help, g.degraded.clone());
        let help = "Endpoints of this host";
        r.register("endpoints", help, g.endpoints.clone());
        let help = "Policies that select an endpoint of this host";
        r.register("policies", help, g.policies.clone());
        r.register("resources", "Resources in force", g.resources.clone());
        r.register("ip_sets", "IP sets in use", g.sets.clone());
        let help = "Members of each IP set in use";
        r.register("ip_set_members", help, self.set_members.clone());
        let help = "Age of the snapshot";
        r.register_with_unit("snapshot_age", help, Unit::Seconds, g.snapshot_age.clone());
        let help = "Memory of the daemon that is in use";
        r.register_with_unit("resident_memory", help, Unit::Bytes, g.memory.clone());
    }

    /// A change was written, or not.
    pub fn applied(&self, took: Duration, good: bool) {
        let result = if good { "ok" } else { "failed" };
        self.applies
            .get_or_create(&[("result", result.to_owned())])
            .inc();
        self.apply_seconds.observe(took.as_secs_f64());
    }

    /// The host policy was calculated and compiled.
    pub fn calculated(&self, took: Duration) {
        self.calculation_seconds.observe(took.as_secs_f64());
    }

    /// A change arrived in the kernel so long after it was noticed.
    pub fn lag(&self, time: Duration) {
        self.lag_seconds.observe(time.as_secs_f64());
    }

    /// What somebody else had changed was repaired: so many things of each kind.
    pub fn repaired(&self, kinds: &[(&'static str, usize)]) {
        self.repairs.inc();
        for (kind, number) in kinds {
            self.repaired
                .get_or_create(&[("kind", (*kind).to_owned())])
                .inc_by(*number as u64);
        }
    }

    /// So many connections were cut.
    pub fn connections_removed(&self, number: u64) {
        self.connections_removed.inc_by(number);
    }

    /// Everything as text.
    pub fn text(&self, reading: &Reading) -> String {
        let g = &self.gauges;
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        g.generation
            .set(i64::try_from(reading.generation).unwrap_or(i64::MAX));
        g.ready.set(i64::from(reading.ready));
        g.degraded.set(number(reading.degraded));
        g.endpoints.set(number(reading.endpoints));
        g.policies.set(number(reading.policies));
        g.resources.set(number(reading.resources));
        g.sets.set(number(reading.sets.len()));
        let age = reading.snapshot_age.map_or(f64::NAN, |a| a.as_secs_f64());
        g.snapshot_age.set(age);
        g.memory.set(number(resident_memory().unwrap_or_default()));
        self.set_members.clear();
        for (set, members) in &reading.sets {
            self.set_members
                .get_or_create(&[("set", set.clone())])
                .set(number(*members));
        }
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Bytes of memory of this process that are in use.
fn resident_memory() -> Option<usize> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = pages.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_moats_and_values_are_there() {
        let metrics = Metrics::new();
        metrics.applied(Duration::from_millis(3), true);
        metrics.applied(Duration::from_millis(3), false);
        metrics.repaired(&[("rules", 7), ("members", 0)]);
        let text = metrics.text(&Reading {
            generation: 12,
            ready: true,
            sets: vec![("moat4-a".to_owned(), 3)],
            ..Reading::default()
        });
        for line in [
            "moat_applies_total{result=\"ok\"} 1",
            "moat_applies_total{result=\"failed\"} 1",
            "moat_apply_seconds_count 2",
            "moat_drift_repairs_total 1",
            "moat_drift_repaired_total{kind=\"rules\"} 7",
            "moat_generation 12",
            "moat_ready 1",
            "moat_ip_sets 1",
            "moat_ip_set_members{set=\"moat4-a\"} 3",
            "moat_snapshot_age_seconds NaN",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        let memory = text
            .lines()
            .find_map(|l| l.strip_prefix("moat_resident_memory_bytes "));
        assert!(memory.unwrap().parse::<usize>().unwrap() > 1 << 20);
        let gone = metrics.text(&Reading::default());
        assert!(!gone.contains("moat4-a"), "a set that is gone is not shown");
    }
}
