//! Why etcd did not do what was asked.

use std::error::Error;

use tonic::Code;

/// An error of one call to one endpoint.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// Something on this host is wrong: a file with a certificate, an endpoint that is no URL.
    #[error("{0}")]
    Local(String),
    /// The endpoint cannot be reached or does not answer in time.
    #[error("{endpoint}: {reason}")]
    Away {
        /// The URL.
        endpoint: String,
        /// In words, with all causes.
        reason: String,
    },
    /// The endpoint answered with an error.
    #[error("{endpoint}: {message}")]
    Refused {
        /// The URL.
        endpoint: String,
        /// The code of gRPC.
        code: Code,
        /// What etcd says, with a hint.
        message: String,
    },
    /// The history that was asked for is no longer there.
    #[error("the revision asked for has been compacted")]
    Compacted,
    /// An answer is larger than moat reads.
    #[error("{endpoint}: an answer is larger than {limit} bytes")]
    TooLarge {
        /// The URL.
        endpoint: String,
        /// The most that is read.
        limit: usize,
    },
}

impl EtcdError {
    /// The role of this identity does not allow this one thing; another one may be allowed.
    pub fn is_denied(&self) -> bool {
        matches!(self, EtcdError::Refused { code, .. } if *code == Code::PermissionDenied)
    }

    pub(super) fn away(endpoint: &str, error: &(dyn Error + 'static)) -> EtcdError {
        EtcdError::Away {
            endpoint: endpoint.to_owned(),
            reason: words(&causes(error)),
        }
    }

    pub(super) fn silent(endpoint: &str, seconds: u64) -> EtcdError {
        EtcdError::Away {
            endpoint: endpoint.to_owned(),
            reason: format!("no answer in {seconds} s"),
        }
    }

    pub(super) fn of(endpoint: &str, status: &tonic::Status, limit: usize) -> EtcdError {
        let message = status.message();
        let endpoint = endpoint.to_owned();
        if message.contains("has been compacted") {
            return EtcdError::Compacted;
        }
        if message.contains("message length too large") {
            return EtcdError::TooLarge { endpoint, limit };
        }
        if status.source().is_some() || is_transport(status.code()) {
            let causes = status.source().map_or(String::new(), causes);
            let reason = words(format!("{message}: {causes}").trim_end_matches(": "));
            return EtcdError::Away { endpoint, reason };
        }
        EtcdError::Refused {
            endpoint,
            code: status.code(),
            message: words(message),
        }
    }
}

fn is_transport(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable | Code::Cancelled | Code::Unknown | Code::DeadlineExceeded
    )
}

/// All causes, the outermost first, each once.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        // Says nothing, or nothing new.
        if text != "transport error" && !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.join(": ")
}

/// With a hint where the cause is well known.
fn words(text: &str) -> String {
    const HINTS: [(&str, &str); 8] = [
        (
            "certificate expired",
            "a certificate has expired, or the clock of this host is wrong",
        ),
        (
            "not valid yet",
            "a certificate is not valid yet: compare the clocks of this host and of etcd",
        ),
        (
            "UnknownIssuer",
            "etcd's certificate is not of the CA in etcdCaFile",
        ),
        (
            "NotValidForName",
            "etcd's certificate does not name the host of the endpoint",
        ),
        (
            "CertificateRequired",
            "etcd wants a client certificate: set etcdCertFile and etcdKeyFile",
        ),
        (
            "permission denied",
            "the role of this identity does not allow it",
        ),
        ("invalid auth token", "the user or its roles were changed"),
        (
            "user name is empty",
            "etcd wants a user: set etcdUsername and etcdPasswordFile, or a client certificate",
        ),
    ];
    match HINTS.iter().find(|(cause, _)| text.contains(cause)) {
        Some((_, hint)) => format!("{text} ({hint})"),
        None => text.to_owned(),
    }
}
