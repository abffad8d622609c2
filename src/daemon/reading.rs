//! What the loop reads anew: settings, policy directories, interfaces.

use std::path::Path;
use std::time::Instant;

use super::notify;
use super::report::now;
use super::run::{Daemon, UNSETTLED};
use crate::source::News;

impl Daemon<'_> {
    /// After a quick start: reads all the rest. Only what differs from what is in force changes the kernel.
    pub(super) fn complete(&mut self) {
        tokio::task::block_in_place(|| self.parts.complete());
        self.note_contacts();
        self.recalculate(false);
    }

    /// Reads settings and directories; later, if settings are being written.
    pub(super) fn reload(&mut self) {
        if self.reload_settings().is_none() {
            // systemd waits for the news of the reload until it takes place.
            return;
        }
        notify::reloading();
        self.scan(&News::Anywhere);
        self.recalculate(true);
        // Readiness is told once something is in force, not by a reload before that.
        if self.ready {
            notify::ready();
        }
    }

    /// Whether the directories are others now; none if settings are being written, and then they are read when they may be
    /// complete.
    pub(super) fn reload_settings(&mut self) -> Option<bool> {
        let read = self.parts.reload_settings(self.args);
        self.reload_at = read.err().map(|wait| Instant::now() + wait);
        read.ok()
    }

    pub(super) fn files_changed(&mut self, news: &News) {
        let changed = self.scan(news);
        self.recalculate(changed);
    }

    /// Reads the directories; says whether a resource changed.
    pub(super) fn scan(&mut self, news: &News) -> bool {
        let mut changed = false;
        let mut news = news;
        loop {
            let parts = &mut self.parts;
            parts.source.set_open(parts.watcher.open());
            let touched = parts.engine.read(&mut parts.source, news);
            news = &News::Anywhere;
            self.note_contacts();
            changed |= touched.resources;
            if !touched.felix || self.reload_settings() != Some(true) {
                break;
            }
        }
        self.rescan_at = self
            .parts
            .source
            .unsettled()
            .then(|| Instant::now() + UNSETTLED);
        changed
    }

    pub(super) fn note_contacts(&mut self) {
        let away: Vec<&Path> = self.parts.source.away().collect();
        for dir in &self.parts.loaded.settings.policy_dirs {
            if !away.contains(&dir.as_path()) {
                self.contacts.insert(dir.clone(), now());
            }
        }
    }

    pub(super) fn links_changed(&mut self) {
        let links = self.parts.monitor.links().clone();
        self.parts.engine.set_links(links);
        self.recalculate(false);
    }
}
