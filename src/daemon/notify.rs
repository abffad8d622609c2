//! Messages to systemd. All of them do nothing when it does not listen.

use std::time::Duration;

use sd_notify::NotifyState;

/// Startup or reload is over: policy is in force.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// The line that `systemctl status` shows.
pub fn status(text: &str) {
    send(&[NotifyState::Status(&one_line(text))]);
}

/// A reload begins; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        // One message, because systemd wants the time together with the news.
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(e) => tracing::warn!("systemd is not told of the reload: {e}"),
    }
}

/// The daemon is about to end.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// The daemon makes progress. Wanted once per [`watchdog_interval`].
pub fn watchdog() {
    send(&[NotifyState::Watchdog]);
}

/// Startup, reload or stop may take this much longer, counted from now.
pub fn extend_timeout(more: Duration) {
    let usec = u32::try_from(more.as_micros()).unwrap_or(u32::MAX);
    send(&[NotifyState::ExtendTimeoutUsec(usec)]);
}

/// How often to call [`watchdog`]: half the time after which systemd would kill the daemon, if it watches it.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn send(states: &[NotifyState]) {
    if let Err(e) = sd_notify::notify(states) {
        tracing::warn!("systemd does not take messages on NOTIFY_SOCKET: {e}");
    }
}

/// A line break would begin another message.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

    use super::*;

    /// Does nothing without NOTIFY_SOCKET; the test below runs it in a process of its own that has one.
    #[test]
    fn sender() {
        ready();
        status("two\nREADY=1");
        reloading();
        stopping();
        watchdog();
        extend_timeout(Duration::from_secs(3));
        extend_timeout(Duration::from_secs(1 << 40));
        status(&format!("{:?}", watchdog_interval()));
    }

    fn run_sender(socket: Option<&std::path::Path>) {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "daemon::notify::tests::sender"]);
        child
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_PID")
            .env("WATCHDOG_USEC", "4000000");
        if let Some(socket) = socket {
            child.env("NOTIFY_SOCKET", socket);
        }
        assert!(child.output().unwrap().status.success());
    }

    #[test]
    fn messages_as_systemd_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        run_sender(Some(&path));
        let mut messages = Vec::new();
        let mut buffer = [0; 1024];
        while let Ok(length) = socket.recv(&mut buffer) {
            messages.push(
                String::from_utf8_lossy(&buffer[..length])
                    .trim_end()
                    .to_owned(),
            );
        }
        assert!(
            messages[2].starts_with("RELOADING=1\nMONOTONIC_USEC="),
            "{messages:?}"
        );
        messages.remove(2);
        let wanted = [
            "READY=1",
            "STATUS=two READY=1",
            "STOPPING=1",
            "WATCHDOG=1",
            "EXTEND_TIMEOUT_USEC=3000000",
            "EXTEND_TIMEOUT_USEC=4294967295",
            "STATUS=Some(2s)",
        ];
        assert_eq!(messages, wanted);
    }

    #[test]
    fn nobody_listens() {
        run_sender(None);
        run_sender(Some(std::path::Path::new("/nonexistent/socket")));
    }
}
