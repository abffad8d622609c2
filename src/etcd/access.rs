//! How etcd is reached: endpoints, certificates, user.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::certificate::{self, Validity};
use super::files::{self, Version};
use super::{EtcdError, srv};

/// As in Calico's client.
const CONNECT: Duration = Duration::from_secs(10);
/// A broken connection is noticed after these two together.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(5);
/// Where etcd listens when nothing else is said.
const DEFAULT_PORT: u16 = 2379;

/// A certificate or key: in a file, or itself.
#[derive(Clone, PartialEq, Eq)]
pub enum Material {
    /// In this file, which is read at each connection.
    File(PathBuf),
    /// This text.
    Inline(String),
}

/// Never shows a key.
impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Material::File(path) => write!(f, "{}", path.display()),
            Material::Inline(_) => f.write_str("(inline)"),
        }
    }
}

impl Material {
    fn text(&self) -> Result<String, EtcdError> {
        match self {
            Material::File(path) => files::read(path),
            Material::Inline(text) => Ok(text.clone()),
        }
    }

    fn version(&self) -> Version {
        match self {
            Material::File(path) => files::version(path),
            Material::Inline(_) => None,
        }
    }
}

/// A password; a type of its own so that it is never printed.
pub type Password = Material;

/// Everything that is needed to reach etcd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// URLs.
    pub endpoints: Vec<String>,
    /// A domain whose SRV records name the endpoints, instead of them.
    pub discovery: Option<String>,
    /// Whom to trust; without it those whom the system trusts.
    pub ca: Option<Material>,
    /// The certificate by which etcd knows this host.
    pub certificate: Option<Material>,
    /// Its key.
    pub key: Option<Material>,
    /// Name of a user of etcd.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<Password>,
}

impl Access {
    /// The endpoints that are given by address, each with its port.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let address = |url: &String| {
            let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
            rest.trim_end_matches('/').parse().ok()
        };
        self.endpoints.iter().filter_map(address).collect()
    }

    /// The URLs, looked up if they are to be discovered.
    ///
    /// # Errors
    /// None is configured, or the lookup failed.
    pub async fn resolve(&self) -> Result<Vec<String>, EtcdError> {
        match &self.discovery {
            Some(domain) => srv::discover(domain).await,
            None if self.endpoints.is_empty() => Err(EtcdError::Local(
                "no endpoint of etcd is configured: set etcdEndpoints".to_owned(),
            )),
            None => Ok(self.endpoints.clone()),
        }
    }

    /// A connection to be made to one endpoint, with certificates as they are in their files now.
    pub(super) fn endpoint(&self, url: &str) -> Result<Endpoint, EtcdError> {
        let wrong = |e: &dyn fmt::Display| EtcdError::Local(format!("endpoint {url}: {e}"));
        let uri = with_port(url);
        let is_tls = uri.starts_with("https:");
        let endpoint = Endpoint::from_shared(uri).map_err(|e| wrong(&e))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_ANSWER)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        if !is_tls {
            return Ok(endpoint);
        }
        let with_tls = endpoint.tls_config(self.tls()?);
        with_tls.map_err(|e| EtcdError::Local(format!("certificates for {url}: {}", chain(&e))))
    }

    fn tls(&self) -> Result<ClientTlsConfig, EtcdError> {
        let config = ClientTlsConfig::new();
        let config = match &self.ca {
            Some(ca) => config.ca_certificate(Certificate::from_pem(ca.text()?)),
            None => config.with_native_roots(),
        };
        match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                Ok(config.identity(Identity::from_pem(certificate.text()?, key.text()?)))
            }
            (None, None) => Ok(config),
            _ => Err(EtcdError::Local(
                "a client certificate needs both etcdCertFile and etcdKeyFile".to_owned(),
            )),
        }
    }

    /// Name and password, if a user is configured.
    pub(super) fn user(&self) -> Result<Option<(String, String)>, EtcdError> {
        match (&self.username, &self.password) {
            (Some(name), Some(password)) => {
                // A line end is what an editor adds.
                let password = password.text()?.trim_end_matches(['\r', '\n']).to_owned();
                Ok(Some((name.clone(), password)))
            }
            (None, None) => Ok(None),
            _ => Err(EtcdError::Local(
                "a user of etcd needs both name and password".to_owned(),
            )),
        }
    }

    /// The versions of all files, to notice when one changes.
    pub fn versions(&self) -> Vec<Version> {
        let files = [&self.ca, &self.certificate, &self.key, &self.password];
        files
            .into_iter()
            .map(|file| file.as_ref().and_then(Material::version))
            .collect()
    }

    /// What is or will soon be wrong with the certificates, in words.
    pub fn warnings(&self, now: std::time::SystemTime) -> Vec<String> {
        let files = [
            ("client certificate", &self.certificate),
            ("CA certificate", &self.ca),
        ];
        let mut warnings = Vec::new();
        for (what, material) in files {
            let Some(material) = material else { continue };
            let Ok(text) = material.text() else { continue };
            for validity in certificate::validities(&text) {
                let warning = validity.warning(now);
                warnings.extend(warning.map(|w| format!("etcd: the {what} {material:?} {w}")));
            }
        }
        warnings
    }

    /// The validity of the client certificate, if there is one.
    pub fn validity(&self) -> Option<Validity> {
        let text = self.certificate.as_ref()?.text().ok()?;
        certificate::validities(&text).into_iter().next()
    }
}

/// A URL with a port: `host`, `host:port` and `http://host` are what people write, too.
fn with_port(url: &str) -> String {
    let url = url.trim_end_matches('/');
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let host = rest.rsplit_once(']').map_or(rest, |(_, after)| after);
    match host.contains(':') {
        true => format!("{scheme}://{rest}"),
        false => format!("{scheme}://{rest}:{DEFAULT_PORT}"),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_endpoints() {
        let cases = [
            ("https://e1:2379", "https://e1:2379"),
            ("http://e1/", "http://e1:2379"),
            ("10.0.0.1", "http://10.0.0.1:2379"),
            ("https://[fd00::1]", "https://[fd00::1]:2379"),
            ("https://[fd00::1]:4001", "https://[fd00::1]:4001"),
        ];
        for (given, expected) in cases {
            assert_eq!(with_port(given), expected);
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let access = Access {
            key: Some(Material::Inline("SECRET".to_owned())),
            password: Some(Material::Inline("SECRET".to_owned())),
            ..Access::default()
        };
        assert!(!format!("{access:?}").contains("SECRET"));
    }
}
