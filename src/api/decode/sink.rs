//! Collects what is wrong with one text.

use std::cell::{Cell, RefCell};

use crate::api::issue::{Issue, Severity};
use crate::api::types::ResourceId;

/// Most issues reported for one text; those behind are only counted.
pub const MAX_ISSUES: usize = 100;

/// Collects the issues of one text.
#[derive(Debug, Default)]
pub struct Sink {
    file: String,
    is_stored: bool,
    object: RefCell<Option<ResourceId>>,
    issues: RefCell<Vec<Issue>>,
    errors: Cell<usize>,
    dropped: Cell<usize>,
}

impl Sink {
    /// A sink for the text of that file.
    pub fn new(file: &str) -> Sink {
        Sink {
            file: file.to_owned(),
            ..Sink::default()
        }
    }

    /// A sink for what a program has stored there, whose version may know more than this one.
    pub fn of_stored(file: &str) -> Sink {
        Sink {
            is_stored: true,
            ..Sink::new(file)
        }
    }

    /// Whether a program wrote it, not a person who may have mistyped a word.
    pub fn is_stored(&self) -> bool {
        self.is_stored
    }

    /// Names the resource that the following issues are about.
    pub fn about(&self, object: Option<ResourceId>) {
        *self.object.borrow_mut() = object;
    }

    /// Errors so far, reported or not.
    pub fn errors(&self) -> usize {
        self.errors.get()
    }

    /// Whether further issues would only be counted.
    pub fn is_full(&self) -> bool {
        self.issues.borrow().len() >= MAX_ISSUES
    }

    /// Adds an issue at a position.
    pub fn report(
        &self,
        severity: Severity,
        pos: (u32, u32),
        path: String,
        value: Option<String>,
        text: Message,
    ) {
        if severity == Severity::Error {
            self.errors.set(self.errors.get() + 1);
        }
        if self.is_full() {
            self.dropped.set(self.dropped.get() + 1);
            return;
        }
        let object = self.object.borrow().clone();
        let (line, column) = pos;
        let Message { message, help } = text;
        let file = self.file.clone();
        self.issues.borrow_mut().push(Issue {
            severity,
            file,
            line,
            column,
            object,
            path,
            value,
            message,
            help,
        });
    }

    /// The state that [`Sink::rewind`] comes back to.
    pub fn mark(&self) -> Mark {
        Mark {
            issues: self.issues.borrow().len(),
            errors: self.errors.get(),
            dropped: self.dropped.get(),
        }
    }

    /// Forgets what was reported since.
    pub fn rewind(&self, mark: Mark) {
        self.about(None);
        self.issues.borrow_mut().truncate(mark.issues);
        self.errors.set(mark.errors);
        self.dropped.set(mark.dropped);
    }

    /// All issues in the order of the text.
    pub fn finish(self) -> Vec<Issue> {
        let mut issues = self.issues.into_inner();
        issues.sort_by_key(|issue| (issue.line, issue.column));
        let dropped = self.dropped.get();
        if dropped > 0 {
            issues.push(Issue {
                severity: match self.errors.get() {
                    0 => Severity::Warning,
                    _ => Severity::Error,
                },
                line: issues.last().map_or(0, |issue| issue.line),
                column: issues.last().map_or(0, |issue| issue.column),
                file: self.file,
                object: None,
                path: String::new(),
                value: None,
                message: format!("at least {dropped} more issues are not shown"),
                help: None,
            });
        }
        issues
    }
}

/// How much a sink had collected at some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    issues: usize,
    errors: usize,
    dropped: usize,
}

/// What an issue says.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The rule that is broken.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl<T: Into<String>> From<T> for Message {
    fn from(message: T) -> Message {
        Message {
            message: message.into(),
            help: None,
        }
    }
}

impl Message {
    /// A message with advice.
    pub fn with(message: impl Into<String>, help: impl Into<Option<String>>) -> Message {
        Message {
            message: message.into(),
            help: help.into(),
        }
    }
}
