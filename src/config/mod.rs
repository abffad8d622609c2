//! stub
use crate::api::Protocol;
use ipnet::IpNet;
/// f
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Failsafe { /// p
 pub protocol: Protocol, /// p
 pub port: u16, /// n
 pub net: Option<IpNet> }
/// x
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToHostAction { /// d
Drop, /// r
Return, /// a
Accept }
/// s
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq)]
pub struct Settings { pub failsafe_inbound_host_ports: Vec<Failsafe>, pub failsafe_outbound_host_ports: Vec<Failsafe>, pub interface_prefix: Vec<String>, pub interface_exclude: Vec<String>, pub default_endpoint_to_host_action: ToHostAction, pub disable_conntrack_invalid_check: bool }
