//! Names on the command line, and answers in calicoctl's words.

use serde_json::json;

use crate::api::{Kind, ResourceId};
use crate::ctl::output::{self, Output};
use crate::ctl::{EX_NO, EX_USAGE, Failure};
use crate::etcd::document;

/// Refuses what only Calico's own programs write, and the profile that is built in.
pub fn writable(id: &ResourceId, verb: &str) -> Result<(), Failure> {
    use Kind::*;
    let no = |text: String| Err(Failure::new(EX_NO, text));
    let (kind, name) = (id.kind, &id.name);
    match kind {
        ClusterInformation | IPAMBlock | IPAMHandle | BlockAffinity => no(format!(
            "operation is not supported on {kind}: only Calico's programs write it"
        )),
        NetworkPolicy if name.starts_with("knp.default.") => no(format!(
            "operation {verb} is not supported on {name}: kubernetes network policies must be managed through the kubernetes API"
        )),
        Profile if *name == document::DEFAULT_PROFILE && verb == "create" => {
            no(format!("resource already exists: {name}"))
        }
        Profile if *name == document::DEFAULT_PROFILE => {
            let done = format!("{}d", verb.to_lowercase());
            no(format!(
                "operation {verb} is not supported on {name}: The profile \"{name}\" is a default provided by Calico and cannot be {done}"
            ))
        }
        _ => Ok(()),
    }
}

/// A refusal in calicoctl's words.
pub fn refusal(what: &str, id: &ResourceId) -> Failure {
    let name = match id.namespace.as_str() {
        "" => id.name.clone(),
        namespace => format!("{namespace}/{}", id.name),
    };
    Failure::new(EX_NO, format!("{what}: {}({name})", id.kind))
}

/// Says behind a message that nothing came of it.
pub fn note(dry_run: bool) -> &'static str {
    match dry_run {
        true => " (dry run: nothing was written)",
        false => "",
    }
}

/// The kind that a word of the command line means.
pub fn of_kind(word: &str) -> Result<Kind, Failure> {
    word.parse().map_err(|error: crate::api::UnknownKind| {
        let help = error.help.map_or(String::new(), |help| format!(": {help}"));
        let text = format!("resource type '{}' is not supported{help}", error.word);
        Failure::new(EX_NO, text)
    })
}

/// The same failure, with what could not be done.
pub fn failed(what: &str, failure: Failure) -> Failure {
    Failure::new(
        failure.code,
        format!("failed to {what}: {}", failure.message),
    )
}

/// The ids that a kind and names on the command line mean.
pub fn named(
    kind: &str,
    names: &[String],
    namespace: Option<&str>,
) -> Result<Vec<ResourceId>, Failure> {
    let kind = of_kind(kind)?;
    if namespace.is_some() && !kind.is_namespaced() {
        return Err(Failure::new(EX_NO, format!("{kind} is not namespaced")));
    }
    if names.is_empty() {
        let text = "No resources specified: name them, or say -f";
        return Err(Failure::new(EX_USAGE, text));
    }
    if names.iter().any(String::is_empty) {
        return Err(Failure::new(EX_NO, "resource name may not be empty"));
    }
    let namespace = match kind.is_namespaced() {
        true => namespace.unwrap_or("default"),
        false => "",
    };
    let id = |name: &String| ResourceId {
        kind,
        namespace: namespace.to_owned(),
        name: name.clone(),
    };
    Ok(names.iter().map(id).collect())
}

/// As [`named`], of one name.
pub fn one(kind: &str, name: &str, namespace: Option<&str>) -> Result<ResourceId, Failure> {
    let mut ids = named(kind, &[name.to_owned()], namespace)?;
    Ok(ids.swap_remove(0))
}

/// Says what was done.
pub fn said(form: Output, text: &str) -> Result<(), Failure> {
    let text = text.trim_end();
    output::print(form, &json!({"message": text}), || text.to_owned())
}
