//! What moatctl stores of the kinds and in the forms that only newer clients know, byte for byte. Only uid and time are other ones each
//! time. What an older client stores is in calicoctl.rs.

use crate::ctl::Site;

/// Key, document and stored value.
const CASES: [(&str, &str, &str); 5] = [
    (
        "hostendpoints/web1-eth0",
        "{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: web1-eth0, labels: {role: web}}, spec: {node: web1, interfaceName: eth0, expectedIPs: [10.0.0.5], ports: [{name: http, protocol: TCP, port: 80}]}}",
        r#"{"kind":"HostEndpoint","apiVersion":"projectcalico.org/v3","metadata":{"name":"web1-eth0","uid":"UID","creationTimestamp":"TIME","labels":{"role":"web"}},"spec":{"node":"web1","interfaceName":"eth0","expectedIPs":["10.0.0.5"],"ports":[{"name":"http","protocol":"TCP","port":80}]}}"#,
    ),
    (
        "globalnetworkpolicies/allow-ssh",
        "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: allow-ssh}, spec: {tier: default, order: 100, selector: role == 'web', types: [Ingress], ingress: [{action: Allow, protocol: TCP, source: {nets: [10.0.0.0/8]}, destination: {ports: [22]}}]}}",
        r#"{"kind":"GlobalNetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"allow-ssh","uid":"UID","creationTimestamp":"TIME","labels":{"projectcalico.org/tier":"default"},"annotations":{"projectcalico.org/metadata":"{\"name\":\"allow-ssh\"}"}},"spec":{"tier":"default","order":100,"ingress":[{"action":"Allow","protocol":"TCP","source":{"nets":["10.0.0.0/8"]},"destination":{"ports":[22]}}],"selector":"role == 'web'","types":["Ingress"]}}"#,
    ),
    (
        "networksets/ns/office",
        "{apiVersion: projectcalico.org/v3, kind: NetworkSet, metadata: {name: office, namespace: ns}, spec: {nets: [198.51.100.0/24]}}",
        r#"{"kind":"NetworkSet","apiVersion":"projectcalico.org/v3","metadata":{"name":"office","namespace":"ns","uid":"UID","creationTimestamp":"TIME"},"spec":{"nets":["198.51.100.0/24"]}}"#,
    ),
    (
        "tiers/security",
        "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: security}, spec: {order: 10}}",
        r#"{"kind":"Tier","apiVersion":"projectcalico.org/v3","metadata":{"name":"security","uid":"UID","creationTimestamp":"TIME"},"spec":{"order":10,"defaultAction":"Deny"}}"#,
    ),
    (
        "ippools/pool",
        "{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: pool}, spec: {cidr: 192.168.0.0/16, ipipMode: Always, natOutgoing: true}}",
        r#"{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"pool","uid":"UID","creationTimestamp":"TIME"},"spec":{"cidr":"192.168.0.0/16","vxlanMode":"Never","ipipMode":"Always","natOutgoing":true,"blockSize":26,"nodeSelector":"all()","allowedUses":["Workload","Tunnel"],"assignmentMode":"Automatic"}}"#,
    ),
];

#[test]
fn stored_documents_are_calicos_byte_for_byte() {
    let site = Site::new();
    for (key, document, expected) in CASES {
        site.run_on(document, &["create", "-f", "-"])
            .says(0, "Successfully created 1");
        let raw = site.raw(key);
        let stored = site.stored(key);
        let of = |field: &str| stored["metadata"][field].as_str().unwrap().to_owned();
        let same = raw
            .trim_end()
            .replace(&of("uid"), "UID")
            .replace(&of("creationTimestamp"), "TIME");
        assert_eq!(same, expected);
    }
}
