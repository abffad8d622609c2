//! The thread that writes to the kernel, so that nobody else has to wait for it.

use std::sync::mpsc;
use std::{io, thread};

use tokio::sync::oneshot;

use super::{Applied, Dataplane, DataplaneError, Plan, Wanted};
use crate::config::Settings;

type Job = Box<dyn FnOnce(&mut dyn Dataplane) + Send>;

/// Owns a dataplane on a thread of its own. Jobs are done one after the other; a caller that coalesces has at most one of them
/// under way. A job whose answer is no longer awaited is done all the same.
#[derive(Debug)]
pub struct Applier {
    jobs: mpsc::Sender<Job>,
}

impl Applier {
    /// Starts the thread, in the network namespace of the caller.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn new(mut dataplane: Box<dyn Dataplane>) -> io::Result<Applier> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let work = move || {
            for job in queue {
                job(&mut *dataplane);
            }
        };
        thread::Builder::new()
            .name("dataplane".to_owned())
            .spawn(work)?;
        Ok(Applier { jobs })
    }

    /// Other settings, from the next job on.
    pub fn configure(&self, settings: Settings) {
        self.send(Box::new(move |d| d.configure(&settings)));
    }

    /// See [`Dataplane::distrust`].
    pub fn distrust(&self) {
        self.send(Box::new(|d| d.distrust()));
    }

    /// See [`Dataplane::apply`].
    pub fn apply(
        &self,
        wanted: Wanted,
    ) -> impl Future<Output = Result<Applied, DataplaneError>> + Send + use<> {
        self.ask(move |d| d.apply(&wanted))
    }

    /// See [`Dataplane::verify`].
    pub fn verify(
        &self,
        wanted: Wanted,
    ) -> impl Future<Output = Result<Applied, DataplaneError>> + Send + use<> {
        self.ask(move |d| d.verify(&wanted))
    }

    /// See [`Dataplane::check`].
    pub fn check(&self) -> impl Future<Output = Result<bool, DataplaneError>> + Send + use<> {
        self.ask(|d| d.check())
    }

    /// See [`Dataplane::plan`].
    pub fn plan(
        &self,
        wanted: Wanted,
    ) -> impl Future<Output = Result<Plan, DataplaneError>> + Send + use<> {
        self.ask(move |d| d.plan(&wanted))
    }

    /// Does something else between two jobs: what must not happen while rules are written.
    pub fn ask<T, J>(
        &self,
        job: J,
    ) -> impl Future<Output = Result<T, DataplaneError>> + Send + use<T, J>
    where
        T: Send + 'static,
        J: FnOnce(&mut dyn Dataplane) -> Result<T, DataplaneError> + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        self.send(Box::new(move |d| {
            // The caller may have stopped waiting.
            let _ = answer.send(job(d));
        }));
        async move { result.await.unwrap_or(Err(DataplaneError::Ended)) }
    }

    /// A thread that has ended drops the job, and with it the answer, which is how the caller learns of it.
    fn send(&self, job: Job) {
        let _ = self.jobs.send(job);
    }
}
