//! Settings saved by this version and by others.

use super::*;

/// What a run with every kind of layer saves.
fn saved() -> (Loaded, Value) {
    let mut host = Host::with(
        "interfacePrefix = ['cali', 'tap']\n\
         iptablesMarkMask = '0xff00'\n\
         failsafeInboundHostPorts = 'tcp:[::1]:22'\n",
    );
    host.env("MOAT_EXISTINGCONNECTIONS", "keep");
    host.felix(
        "default",
        json!({"chainInsertMode": "Append", "bpfEnabled": true}),
    );
    let loaded = host.load().unwrap();
    let text = serde_json::to_value(&loaded).unwrap();
    (loaded, text)
}

fn read(value: &Value) -> Result<Loaded, Vec<ConfigError>> {
    load_saved(&value.to_string(), "system-name")
}

#[test]
fn saved_settings_come_back_as_they_were() {
    let (loaded, value) = saved();
    assert!(!loaded.notes.is_empty());
    assert_eq!(read(&value).unwrap(), loaded);
}

#[test]
fn a_setting_that_the_older_version_did_not_know_has_its_default() {
    let (loaded, mut value) = saved();
    let name = "maxIpsetSize";
    value["settings"]
        .as_object_mut()
        .unwrap()
        .remove(name)
        .unwrap();
    value["origins"]
        .as_object_mut()
        .unwrap()
        .remove(name)
        .unwrap();
    assert_eq!(read(&value).unwrap(), loaded);
}

#[test]
fn a_setting_that_only_the_newer_version_knows_is_left_out_with_a_note() {
    let (loaded, mut value) = saved();
    value["settings"]["fromTheFuture"] = json!(7);
    value["origins"]["fromTheFuture"] = json!({"star": "chart"});
    let read = read(&value).unwrap();
    assert_eq!(read.settings, loaded.settings);
    assert!(read.notes.last().unwrap().contains("fromTheFuture"));
}

#[test]
fn what_means_nothing_is_refused() {
    let (_, mut value) = saved();
    value["settings"]["chainInsertMode"] = json!("sideways");
    assert!(
        read(&value).unwrap_err()[0]
            .to_string()
            .contains("chainInsertMode")
    );
    assert!(load_saved("", "host").is_err());
    assert!(load_saved("{\"settings\": 1}", "host").is_err());
}
