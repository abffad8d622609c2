//! Calls to one endpoint.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use super::proto::{self, CompareTarget, CompareWith, WatchUnion};
use super::{Access, EtcdError, KeyValue, Watch};

/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest answer that is read, in bytes. A page is asked for in smaller parts when it is larger.
pub(super) const MAX_ANSWER: usize = 16 << 20;
/// By default etcd takes a request of 1.5 MiB; a cluster may allow more.
const MAX_REQUEST: usize = 16 << 20;

/// A connection to one endpoint, with the identity it needs.
#[derive(Clone, Debug)]
pub struct Client {
    grpc: Grpc<Channel>,
    token: Option<MetadataValue<Ascii>>,
    endpoint: String,
}

/// A part of a list.
#[derive(Clone, Debug)]
pub struct Page {
    /// Sorted by key.
    pub items: Vec<KeyValue>,
    /// Whether there are more behind these.
    pub more: bool,
    /// The state of the cluster when it answered.
    pub now: Moment,
}

/// A moment in the life of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// The last change.
    pub revision: i64,
    /// Which cluster.
    pub cluster: u64,
    /// Grows with each election of a leader.
    pub term: u64,
}

/// What must be true for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Always,
    /// There is no such key.
    Absent,
    /// The key was last written by this revision.
    Revision(i64),
}

/// What is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// A value; with a lease it goes when the lease ends.
    Put {
        /// The value.
        value: Vec<u8>,
        /// A lease, or 0.
        lease: i64,
    },
    /// The key is removed.
    Delete,
}

impl Client {
    /// Connects to one endpoint and, if a user is configured, logs in.
    ///
    /// # Errors
    /// It cannot be reached, or refuses this identity; or something on this host is wrong.
    pub async fn connect(access: &Access, url: &str) -> Result<Client, EtcdError> {
        let endpoint = access.endpoint(url)?;
        let user = access.user()?;
        let channel = timeout(PATIENCE, endpoint.connect()).await;
        let channel = channel
            .map_err(|_| EtcdError::silent(url, PATIENCE.as_secs()))?
            .map_err(|e| EtcdError::away(url, &e))?;
        let grpc = Grpc::new(channel)
            .max_decoding_message_size(MAX_ANSWER)
            .max_encoding_message_size(MAX_REQUEST);
        let mut client = Client {
            grpc,
            token: None,
            endpoint: url.to_owned(),
        };
        if let Some((name, password)) = user {
            client.log_in(name, password).await?;
        }
        Ok(client)
    }

    /// Connects to the first endpoint that answers.
    ///
    /// # Errors
    /// Why none did, one after the other.
    pub async fn connect_any(access: &Access) -> Result<Client, EtcdError> {
        Client::connect_from(access, 0).await
    }

    /// As [`Client::connect_any`], beginning with the endpoint of that number.
    ///
    /// # Errors
    /// Why none did, one after the other.
    pub async fn connect_from(access: &Access, turn: usize) -> Result<Client, EtcdError> {
        let mut errors = Vec::new();
        let mut urls = access.resolve().await?;
        let first = turn % urls.len().max(1);
        urls.rotate_left(first);
        for url in urls {
            match Client::connect(access, &url).await {
                Ok(client) => return Ok(client),
                Err(error) => errors.push(error.to_string()),
            }
        }
        Err(EtcdError::Local(errors.join("; ")))
    }

    /// The URL.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    async fn log_in(&mut self, name: String, password: String) -> Result<(), EtcdError> {
        let request = proto::AuthenticateRequest { name, password };
        let answer: proto::AuthenticateResponse = self
            .call("/etcdserverpb.Auth/Authenticate", request)
            .await?;
        let token = answer
            .token
            .parse()
            .map_err(|_| EtcdError::Local(format!("{}: a token that is no text", self.endpoint)))?;
        self.token = Some(token);
        Ok(())
    }

    /// Keys from `from` up to but not `end`, at most `limit`, as they were at a revision (0 for now).
    ///
    /// # Errors
    /// Also [`EtcdError::Compacted`] and [`EtcdError::TooLarge`].
    pub async fn range(
        &mut self,
        from: &[u8],
        end: &[u8],
        limit: i64,
        revision: i64,
    ) -> Result<Page, EtcdError> {
        self.page(proto::RangeRequest {
            key: from.to_vec(),
            range_end: end.to_vec(),
            limit,
            revision,
            keys_only: false,
        })
        .await
    }

    /// The first key from `from` up to but not `end`, without its value.
    ///
    /// # Errors
    /// As [`Client::range`].
    pub async fn first_key(
        &mut self,
        from: &[u8],
        end: &[u8],
        revision: i64,
    ) -> Result<Page, EtcdError> {
        self.page(proto::RangeRequest {
            key: from.to_vec(),
            range_end: end.to_vec(),
            limit: 1,
            revision,
            keys_only: true,
        })
        .await
    }

    async fn page(&mut self, request: proto::RangeRequest) -> Result<Page, EtcdError> {
        let answer: proto::RangeResponse = self.call("/etcdserverpb.KV/Range", request).await?;
        Ok(Page {
            items: answer.kvs.into_iter().map(key_value).collect(),
            more: answer.more,
            now: moment(answer.header),
        })
    }

    /// One key, and the moment of the answer.
    ///
    /// # Errors
    /// As [`Client::range`].
    pub async fn get(&mut self, key: &[u8]) -> Result<(Option<KeyValue>, Moment), EtcdError> {
        let mut page = self.range(key, &[], 1, 0).await?;
        Ok((page.items.pop(), page.now))
    }

    /// Writes one key if the condition holds; says at which revision, or none if it does not hold.
    ///
    /// # Errors
    /// Whether it was written is not known after [`EtcdError::Away`].
    pub async fn write(
        &mut self,
        key: &[u8],
        condition: Condition,
        write: Write,
    ) -> Result<Option<i64>, EtcdError> {
        let compare = |target: CompareTarget, with| proto::Compare {
            target: target.into(),
            key: key.to_vec(),
            with: Some(with),
        };
        let compare = match condition {
            Condition::Always => Vec::new(),
            Condition::Absent => vec![compare(CompareTarget::Version, CompareWith::Version(0))],
            Condition::Revision(at) => {
                vec![compare(CompareTarget::Mod, CompareWith::ModRevision(at))]
            }
        };
        let key = key.to_vec();
        let request = match write {
            Write::Put { value, lease } => {
                proto::Request::Put(proto::PutRequest { key, value, lease })
            }
            Write::Delete => proto::Request::Delete(proto::DeleteRangeRequest { key }),
        };
        let operation = proto::RequestOp {
            request: Some(request),
        };
        let request = proto::TxnRequest {
            compare,
            success: vec![operation],
        };
        let answer: proto::TxnResponse = self.call("/etcdserverpb.KV/Txn", request).await?;
        Ok(answer.succeeded.then(|| moment(answer.header).revision))
    }

    /// A lease of so many seconds.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn lease(&mut self, seconds: i64) -> Result<i64, EtcdError> {
        let request = proto::LeaseGrantRequest { ttl: seconds };
        let answer: proto::LeaseGrantResponse =
            self.call("/etcdserverpb.Lease/LeaseGrant", request).await?;
        Ok(answer.id)
    }

    /// Follows the keys from `from` up to but not `end`, beginning with that revision.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn watch(
        &mut self,
        from: &[u8],
        end: &[u8],
        revision: i64,
    ) -> Result<Watch, EtcdError> {
        let create = proto::WatchCreateRequest {
            key: from.to_vec(),
            range_end: end.to_vec(),
            start_revision: revision,
            progress_notify: true,
            fragment: true,
        };
        let create = proto::WatchRequest {
            union: Some(WatchUnion::Create(create)),
        };
        // The side of the requests stays open as long as the watch.
        let requests = stream::iter([create]).chain(stream::pending());
        let mut request = self.request(requests);
        // A member cut off from the others ends the watch instead of keeping silent.
        let metadata = request.metadata_mut();
        metadata.insert("hasleader", MetadataValue::from_static("true"));
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        self.ready().await?;
        let answer = self.grpc.streaming(request, path, ProstCodec::default());
        let answer = timeout(PATIENCE, answer).await;
        let stream = answer
            .map_err(|_| EtcdError::silent(&self.endpoint, PATIENCE.as_secs()))?
            .map_err(|status| self.error(&status))?
            .into_inner();
        Ok(Watch::new(stream, self.endpoint.clone()))
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    fn error(&self, status: &Status) -> EtcdError {
        EtcdError::of(&self.endpoint, status, MAX_ANSWER)
    }

    async fn ready(&mut self) -> Result<(), EtcdError> {
        let ready = timeout(PATIENCE, self.grpc.ready()).await;
        ready
            .map_err(|_| EtcdError::silent(&self.endpoint, PATIENCE.as_secs()))?
            .map_err(|e| EtcdError::away(&self.endpoint, &e))
    }

    async fn call<Q, A>(&mut self, path: &'static str, message: Q) -> Result<A, EtcdError>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        self.ready().await?;
        let path = PathAndQuery::from_static(path);
        let request = self.request(message);
        let answer = self.grpc.unary(request, path, ProstCodec::default());
        let answer = timeout(PATIENCE, answer).await;
        let answer = answer.map_err(|_| EtcdError::silent(&self.endpoint, PATIENCE.as_secs()))?;
        Ok(answer.map_err(|status| self.error(&status))?.into_inner())
    }
}

pub(super) fn key_value(kv: proto::KeyValue) -> KeyValue {
    KeyValue {
        key: kv.key,
        value: kv.value,
        revision: kv.mod_revision,
    }
}

fn moment(header: Option<proto::Header>) -> Moment {
    let header = header.unwrap_or_default();
    Moment {
        revision: header.revision,
        cluster: header.cluster_id,
        term: header.raft_term,
    }
}
