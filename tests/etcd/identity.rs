//! Who may do what in a cluster: certificates, users and roles.

use std::fs;
use std::process::Command;

use crate::cluster::{Cluster, MEMBERS, address, run};

impl Cluster {
    fn ca(&self) {
        let file = |name: &str| self.path(name).display().to_string();
        run(
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "365",
                "-subj",
                "/CN=ca",
                "-keyout",
                &file("ca.key"),
                "-out",
                &file("ca.pem"),
            ],
        );
    }

    /// A certificate authority, and the certificates of the members and of root.
    pub fn certificates(&self) {
        self.ca();
        self.certificate("server", 365);
        self.certificate("root", 365);
    }

    /// Makes `NAME.pem` and `NAME.key` for the user of that name; with negative days it has expired.
    pub fn certificate(&self, name: &str, days: i64) {
        let file = |ending: &str| self.path(&format!("{name}.{ending}")).display().to_string();
        let extensions = self.path("extensions");
        let names: Vec<String> = MEMBERS.map(|m| format!("IP:{}", address(m))).to_vec();
        fs::write(
            &extensions,
            format!("subjectAltName={},IP:127.0.0.1\n", names.join(",")),
        )
        .unwrap();
        let (ca, ca_key) = (self.path("ca.pem"), self.path("ca.key"));
        run(
            "openssl",
            &[
                "req",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-subj",
                &format!("/CN={name}"),
                "-keyout",
                &file("new.key"),
                "-out",
                &file("csr"),
            ],
        );
        let mut sign = Command::new("openssl");
        sign.args([
            "x509",
            "-req",
            "-in",
            &file("csr"),
            "-CAcreateserial",
            "-out",
            &file("new.pem"),
            "-days",
            &days.to_string(),
        ]);
        sign.arg("-CA")
            .arg(ca)
            .arg("-CAkey")
            .arg(ca_key)
            .arg("-extfile")
            .arg(extensions);
        assert!(sign.output().unwrap().status.success());
        // The key first: a pair that does not fit is noticed, and tried again.
        fs::rename(file("new.key"), file("key")).unwrap();
        fs::rename(file("new.pem"), file("pem")).unwrap();
    }

    /// A user, known by the certificate of that name, whose role may read and write keys with these prefixes; what does not end
    /// with `/` is one key alone.
    pub fn user(&self, name: &str, rights: &[(&str, &str)]) {
        self.certificate(name, 365);
        self.ctl(&["role", "add", name]);
        for (right, prefix) in rights {
            let is_prefix = format!("--prefix={}", prefix.ends_with('/'));
            self.ctl(&["role", "grant-permission", name, &is_prefix, right, prefix]);
        }
        self.ctl(&["user", "add", name, "--no-password"]);
        self.ctl(&["user", "grant-role", name, name]);
    }

    /// From now on roles count.
    pub fn enable_roles(&self) {
        self.ctl(&["user", "add", "root", "--no-password"]);
        self.ctl(&["user", "grant-role", "root", "root"]);
        self.ctl(&["auth", "enable"]);
    }
}
