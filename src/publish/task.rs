//! The task that writes, and tries again what could not be written.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Alive, EndpointState, Wish, endpoint};
use crate::etcd::keys::{self, status};
use crate::etcd::{Access, Client, Condition, EtcdError, Write, prefix_end};

/// Pause after nothing could be written; doubles up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often what is stored is compared with what is to be told, because somebody else may have changed it.
const COMPARE: Duration = Duration::from_secs(60);
/// States of endpoints read at once; a host has few.
const MOST: i64 = 1000;

/// The task's own view.
pub struct Task {
    access: Access,
    wishes: watch::Receiver<Wish>,
    problems: watch::Sender<Vec<String>>,
    started: Instant,
    /// States that are known to be stored; none before they were read.
    stored: Option<BTreeMap<String, EndpointState>>,
    compare_at: Instant,
    alive_at: Instant,
    is_first: bool,
    /// Which endpoint is next.
    turn: usize,
}

impl Task {
    /// Nothing was told yet.
    pub fn new(
        access: Access,
        wishes: watch::Receiver<Wish>,
        problems: watch::Sender<Vec<String>>,
    ) -> Task {
        let now = Instant::now();
        Task {
            access,
            wishes,
            problems,
            started: now,
            stored: None,
            compare_at: now,
            alive_at: now,
            is_first: true,
            turn: 0,
        }
    }

    /// Tells until nobody wants it any more.
    pub async fn run(mut self) {
        let mut pause = PAUSE;
        loop {
            let has_work = |wish: &Wish| {
                wish.alive.is_some() || wish.endpoints.is_some() || wish.registration.is_some()
            };
            if self.wishes.wait_for(has_work).await.is_err() {
                return;
            }
            let Err(error) = self.session(&mut pause).await;
            let text = format!("this host's state is not written to the datastore: {error}");
            self.problems.send_replace(vec![text]);
            self.stored = None;
            // One that takes connections and does not answer must not be in the way of the others.
            self.turn += 1;
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn session(&mut self, pause: &mut Duration) -> Result<Infallible, EtcdError> {
        let mut versions = self.access.versions();
        let mut client = Client::connect_from(&self.access, self.turn).await?;
        loop {
            let problems = self.write(&mut client).await?;
            if problems.is_empty() {
                *pause = PAUSE;
            }
            self.problems.send_if_modified(|held| {
                let differs = *held != problems;
                *held = problems;
                differs
            });
            tokio::select! {
                changed = self.wishes.changed() => if changed.is_err() {
                    // The end of the daemon, and of this task.
                    std::future::pending::<()>().await;
                },
                () = sleep_until(self.compare_at.min(self.alive_at)) => {}
            }
            let now = self.access.versions();
            if now != versions {
                client = Client::connect_from(&self.access, self.turn).await?;
                versions = now;
            }
        }
    }

    /// Writes what is due. What this identity may not write is a problem, but keeps nothing else from being written.
    async fn write(&mut self, client: &mut Client) -> Result<Vec<String>, EtcdError> {
        let wish = self.wishes.borrow_and_update().clone();
        let is_comparing = self.compare_at <= Instant::now();
        if is_comparing {
            self.compare_at = Instant::now() + COMPARE;
            self.stored = None;
        }
        let parts = [
            self.alive(client, &wish)
                .await
                .map_err(|e| (e, "reportingInterval = 0")),
            self.endpoints(client, &wish)
                .await
                .map_err(|e| (e, "endpointReportingEnabled = false")),
            self.registration(client, &wish)
                .await
                .map_err(|e| (e, "registerHostEndpoint = false")),
        ];
        let mut problems = Vec::new();
        for part in parts {
            match part {
                Ok(problem) => problems.extend(problem),
                Err((error, off)) if error.is_denied() => problems.push(format!(
                    "this host's state is not written to the datastore: {error}. Policy is enforced all the same; {off} ends the attempts"
                )),
                Err((error, _)) => return Err(error),
            }
        }
        Ok(problems)
    }

    async fn alive(
        &mut self,
        client: &mut Client,
        wish: &Wish,
    ) -> Result<Option<String>, EtcdError> {
        let Some(Alive { interval, ttl }) = wish.alive else {
            self.alive_at = Instant::now() + LONGEST_PAUSE;
            return Ok(None);
        };
        let now = Instant::now();
        if self.alive_at > now && self.alive_at <= now + interval {
            return Ok(None);
        }
        self.alive_at = now + interval;
        let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        // The form of Felix, down to the order of the fields.
        let value = json!({
            "time": time,
            "uptime": self.started.elapsed().as_secs_f64(),
            "first_update": self.is_first,
        });
        let value = value.to_string().into_bytes();
        let seconds = i64::try_from(ttl.as_secs().max(1)).unwrap_or(i64::MAX);
        let lease = client.lease(seconds).await?;
        put(client, &status::alive(&wish.host), value.clone(), lease).await?;
        put(client, &status::last(&wish.host), value, 0).await?;
        self.is_first = false;
        Ok(None)
    }

    async fn endpoints(
        &mut self,
        client: &mut Client,
        wish: &Wish,
    ) -> Result<Option<String>, EtcdError> {
        let Some(wanted) = &wish.endpoints else {
            return Ok(None);
        };
        let mut stored = match self.stored.take() {
            Some(stored) => stored,
            None => read(client, &wish.host).await?,
        };
        let gone: Vec<String> = stored
            .keys()
            .filter(|key| !wanted.contains_key(*key))
            .cloned()
            .collect();
        for key in gone {
            client
                .write(key.as_bytes(), Condition::Always, Write::Delete)
                .await?;
            stored.remove(&key);
        }
        for (key, state) in wanted
            .iter()
            .filter(|(key, state)| stored.get(*key) != Some(*state))
            .collect::<Vec<_>>()
        {
            let value = json!({"status": state.word()}).to_string().into_bytes();
            put(client, key, value, 0).await?;
            stored.insert(key.clone(), *state);
        }
        self.stored = Some(stored);
        Ok(None)
    }

    async fn registration(
        &mut self,
        client: &mut Client,
        wish: &Wish,
    ) -> Result<Option<String>, EtcdError> {
        let Some(registration) = &wish.registration else {
            return Ok(None);
        };
        let key = keys::key(&endpoint::id(&wish.host));
        let (found, _) = client.get(key.as_bytes()).await?;
        let before = found
            .as_ref()
            .and_then(|kv| serde_json::from_slice(&kv.value).ok());
        if found.is_some() && before.is_none() {
            return Ok(Some(format!(
                "{key} holds no JSON: this host is not registered"
            )));
        }
        let document = match registration.document(&wish.host, before.as_ref()) {
            Ok(Some(document)) => document,
            Ok(None) => return Ok(None),
            Err(problem) => return Ok(Some(problem)),
        };
        let condition = found.map_or(Condition::Absent, |kv| Condition::Revision(kv.revision));
        let write = Write::Put {
            value: document.to_string().into_bytes(),
            lease: 0,
        };
        if client
            .write(key.as_bytes(), condition, write)
            .await?
            .is_none()
        {
            // Somebody else came first; what they wrote is looked at next time.
            self.compare_at = Instant::now() + PAUSE;
        }
        Ok(None)
    }
}

async fn put(client: &mut Client, key: &str, value: Vec<u8>, lease: i64) -> Result<(), EtcdError> {
    let write = Write::Put { value, lease };
    client
        .write(key.as_bytes(), Condition::Always, write)
        .await
        .map(drop)
}

/// The states that are stored, by key; what is not understood is removed.
async fn read(
    client: &mut Client,
    host: &str,
) -> Result<BTreeMap<String, EndpointState>, EtcdError> {
    let state = |value: &[u8]| {
        let states = [EndpointState::Up, EndpointState::Down, EndpointState::Error];
        let value: serde_json::Value = serde_json::from_slice(value).unwrap_or_default();
        states
            .into_iter()
            .find(|state| value["status"] == state.word())
    };
    let mut states = BTreeMap::new();
    for prefix in [status::endpoints(host), status::workloads(host)] {
        let end = prefix_end(prefix.as_bytes());
        let page = client.range(prefix.as_bytes(), &end, MOST, 0).await?;
        for kv in page.items {
            let key = String::from_utf8_lossy(&kv.key).into_owned();
            match state(&kv.value) {
                Some(state) => drop(states.insert(key, state)),
                None => drop(
                    client
                        .write(&kv.key, Condition::Always, Write::Delete)
                        .await?,
                ),
            }
        }
    }
    Ok(states)
}
