//! Messages to systemd. All of them do nothing when it does not listen.

use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use sd_notify::NotifyState;

/// Startup or reload is over: policy is in force.
pub fn ready() {
    send(Message::States(vec![NotifyState::Ready]));
}

/// The line that `systemctl status` shows.
pub fn status(text: &str) {
    send(Message::Status(one_line(text)));
}

/// A reload begins; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        // One message, because systemd wants the time together with the news.
        Ok(now) => send(Message::States(vec![NotifyState::Reloading, now])),
        Err(e) => tracing::warn!("systemd is not told of the reload: {e}"),
    }
}

/// The daemon is about to end.
pub fn stopping() {
    send(Message::States(vec![NotifyState::Stopping]));
    flush(Duration::from_secs(1));
}

/// The daemon makes progress. Wanted once per [`watchdog_interval`].
pub fn watchdog() {
    send(Message::States(vec![NotifyState::Watchdog]));
}

/// Startup, reload or stop may take this much longer, counted from now.
pub fn extend_timeout(more: Duration) {
    let usec = u32::try_from(more.as_micros()).unwrap_or(u32::MAX);
    send(Message::States(vec![NotifyState::ExtendTimeoutUsec(usec)]));
}

/// How often to call [`watchdog`]: half the time after which systemd would kill the daemon, if it watches it.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// Waits until everything said so far was taken, but not longer than this.
pub fn flush(patience: Duration) {
    let (done, wait) = sync_channel(1);
    if let Some(sender) = sender()
        && sender.try_send(Message::Flush(done)).is_ok()
    {
        // Too late or not, there is nothing else to do.
        let _ = wait.recv_timeout(patience);
    }
}

enum Message {
    States(Vec<NotifyState<'static>>),
    Status(String),
    Flush(SyncSender<()>),
}

/// Messages wait here while systemd is slow; more than these are dropped, since only news matter.
const QUEUE: usize = 64;

/// The thread that talks to systemd: sending blocks while nobody reads, and that must not stop the enforcing loop.
fn sender() -> Option<&'static SyncSender<Message>> {
    static SENDER: OnceLock<Option<SyncSender<Message>>> = OnceLock::new();
    let start = || {
        std::env::var_os("NOTIFY_SOCKET")?;
        let (sender, messages) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new().name("notify".to_owned());
        thread
            .spawn(move || messages.into_iter().for_each(deliver))
            .ok()
            .map(|_| sender)
    };
    SENDER.get_or_init(start).as_ref()
}

fn deliver(message: Message) {
    let result = match &message {
        Message::States(states) => sd_notify::notify(states),
        Message::Status(text) => sd_notify::notify(&[NotifyState::Status(text)]),
        Message::Flush(done) => {
            // Whoever waited may have given up.
            let _ = done.try_send(());
            Ok(())
        }
    };
    if let Err(e) = result {
        tracing::warn!("systemd does not take messages on NOTIFY_SOCKET: {e}");
    }
}

fn send(message: Message) {
    if let Some(sender) = sender() {
        // Dropped when systemd has not read the last QUEUE messages: it will not miss this one.
        let _ = sender.try_send(message);
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
        flush(Duration::from_millis(300));
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

    /// The queue of a socket holds ten messages or so.
    #[test]
    fn a_manager_that_does_not_read_stops_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let _unread = UnixDatagram::bind(&path).unwrap();
        for _ in 0..2 {
            run_sender(Some(&path));
        }
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
