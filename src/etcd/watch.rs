//! A stream of changes of keys.

use tonic::Status;
use tonic::codec::Streaming;

use super::client::{MAX_ANSWER, key_value};
use super::proto::{self, EventType};
use super::{EtcdError, KeyValue};

/// A stream of changes.
#[derive(Debug)]
pub struct Watch {
    stream: Streaming<proto::WatchResponse>,
    endpoint: String,
}

/// What a watch tells.
#[derive(Debug)]
pub struct WatchNews {
    /// Changes in the order in which they happened: key and value, or the key only where it was removed.
    pub changes: Vec<(KeyValue, bool)>,
    /// Everything up to this revision has been told, if that is known.
    pub revision: Option<i64>,
}

impl Watch {
    pub(super) fn new(stream: Streaming<proto::WatchResponse>, endpoint: String) -> Watch {
        Watch { stream, endpoint }
    }

    /// Waits for changes. Nothing is lost when the wait is cancelled.
    ///
    /// # Errors
    /// The watch has ended: with [`EtcdError::Compacted`] the keys must be listed anew.
    pub async fn next(&mut self) -> Result<WatchNews, EtcdError> {
        let message = self.stream.message().await;
        let message =
            message.map_err(|status| EtcdError::of(&self.endpoint, &status, MAX_ANSWER))?;
        let ended = |reason: &str| EtcdError::Away {
            endpoint: self.endpoint.clone(),
            reason: format!("the watch has ended: {reason}"),
        };
        let Some(response) = message else {
            return Err(ended("etcd closed it"));
        };
        if response.compact_revision > 0 {
            return Err(EtcdError::Compacted);
        }
        if response.canceled {
            let status = Status::permission_denied(&response.cancel_reason);
            return Err(match response.cancel_reason.contains("permission denied") {
                true => EtcdError::of(&self.endpoint, &status, MAX_ANSWER),
                false => ended(&response.cancel_reason),
            });
        }
        let is_progress = response.events.is_empty() && !response.created;
        let header = response.header.map_or(0, |header| header.revision);
        let last = response
            .events
            .iter()
            .filter_map(|e| e.kv.as_ref())
            .next_back();
        let revision = match last {
            Some(last) if !response.fragment => Some(last.mod_revision),
            _ => is_progress.then_some(header),
        };
        let change = |event: proto::Event| {
            let is_delete = event.r#type == i32::from(EventType::Delete);
            Some((key_value(event.kv?), is_delete))
        };
        Ok(WatchNews {
            changes: response.events.into_iter().filter_map(change).collect(),
            revision,
        })
    }
}
