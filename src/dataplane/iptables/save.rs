//! Reading what the save tools print: only names and identities of ours are believed.
//!
//! `iptables-nft-save` prints native nft rules of others wrongly and still says success, so nothing of a foreign rule
//! is ever taken from its text but that it exists.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::super::command::{CommandError, Tools};
use super::detect::Backend;
use super::render::{RuleId, identity, identity_inside};
use crate::api::Family;
use crate::compile::Table;

/// Chains that the kernel makes.
pub const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
/// Starts the name of every chain of ours.
pub const CHAIN_PREFIX: &str = "moat-";

/// One rule of a built-in chain: who made it, and how to name it for deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRule {
    /// Our identity of the rule; `None` for rules that are not ours.
    pub id: Option<RuleId>,
    /// The rule without its chain, as the tool prints it.
    pub text: String,
}

/// One table as read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundTable {
    /// Our chains with the identities of their rules; `None` is a rule that is not ours.
    pub chains: BTreeMap<String, Vec<Option<RuleId>>>,
    /// Built-in chains with all their rules.
    pub hooks: BTreeMap<String, Vec<FoundRule>>,
}

/// One family as read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Tables of ours that have any content.
    pub tables: BTreeMap<Table, FoundTable>,
    /// Those that the tool says it cannot show. It ends with success all the same.
    pub hidden: BTreeSet<Table>,
    /// Changes with every rule of anybody.
    pub digest: u64,
}

/// Reads the rules of one family.
///
/// # Errors
/// The tool fails or prints no ruleset.
pub fn read(tools: &Tools, backend: Backend, family: Family) -> Result<Saved, CommandError> {
    match read_tables(tools, backend, family, &[]) {
        Err(error) if error.is_unreadable_rule() => {}
        other => return other,
    }
    // One by one: a rule that ends the tool is in one of them, or in a table that is not of ours.
    let mut all = Saved::default();
    for table in Table::ALL {
        match read_tables(tools, backend, family, &["-t", table.name()]) {
            Err(error) if error.is_unreadable_rule() => {
                all.hidden.insert(table);
            }
            other => {
                let saved = other?;
                all.tables.extend(saved.tables);
                all.hidden.extend(saved.hidden);
            }
        }
    }
    Ok(all)
}

/// Reads several families side by side, while something else is done here.
///
/// # Errors
/// As [`read`].
pub fn read_all<T>(
    tools: &Tools,
    backend: Backend,
    families: &[Family],
    meanwhile: impl FnOnce() -> T,
) -> (Result<BTreeMap<Family, Saved>, CommandError>, T) {
    std::thread::scope(|scope| {
        let start = |family: &Family| {
            let family = *family;
            scope.spawn(move || Ok((family, read(tools, backend, family)?)))
        };
        let readers: Vec<_> = families.iter().map(start).collect();
        let done = meanwhile();
        let saved = readers.into_iter().map(|reader| match reader.join() {
            Ok(saved) => saved,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        (saved.collect(), done)
    })
}

fn read_tables(
    tools: &Tools,
    backend: Backend,
    family: Family,
    args: &[&str],
) -> Result<Saved, CommandError> {
    let tool = backend.tool(family, "save");
    let mut reader = Reader::default();
    tools.read(&tool, args, String::new(), |line| reader.line(line))?;
    reader.finish().ok_or_else(|| CommandError::Nonsense {
        program: tool,
        line: "a table without end".to_owned(),
    })
}

/// A fingerprint of all rules of a family, without looking at them.
///
/// # Errors
/// The tool fails.
pub fn digest(tools: &Tools, backend: Backend, family: Family) -> Result<u64, CommandError> {
    let mut digest = DefaultHasher::new();
    let tool = backend.tool(family, "save");
    tools.read(&tool, &[], String::new(), |line| {
        add(&mut digest, line);
        true
    })?;
    Ok(digest.finish())
}

/// The counters of built-in chains and the dates in remarks change without anybody changing rules.
fn add(digest: &mut DefaultHasher, line: &str) {
    let says = match line.as_bytes().first() {
        Some(b'#') | None => return,
        Some(b':') => line.split('[').next().unwrap_or_default(),
        _ => line,
    };
    says.hash(digest);
}

/// Takes the lines of a save tool.
#[derive(Default)]
pub struct Reader {
    saved: Saved,
    digest: DefaultHasher,
    /// The table that is being read, and whether it is one of ours.
    table: Option<Option<Table>>,
}

impl Reader {
    /// Takes a line; false when no such tool would print it.
    pub fn line(&mut self, line: &str) -> bool {
        add(&mut self.digest, line);
        match (line.as_bytes().first(), self.table) {
            (None, _) => true,
            (Some(b'#'), _) => {
                self.saved.hidden.extend(hidden_table(line));
                true
            }
            (Some(b'*'), None) => {
                self.table = Some(Table::ALL.into_iter().find(|t| t.name() == &line[1..]));
                true
            }
            (Some(b':'), Some(table)) => {
                self.chain(table, &line[1..]);
                true
            }
            (Some(b'-'), Some(table)) => line
                .strip_prefix("-A ")
                .inspect(|rule| self.rule(table, rule))
                .is_some(),
            (Some(_), Some(_)) if line == "COMMIT" => {
                self.table = None;
                true
            }
            _ => false,
        }
    }

    /// What was read, unless something is missing.
    pub fn finish(mut self) -> Option<Saved> {
        self.saved.digest = self.digest.finish();
        self.table.is_none().then_some(self.saved)
    }

    fn chain(&mut self, table: Option<Table>, line: &str) {
        let name = line.split(' ').next().unwrap_or_default();
        if let Some(table) = table.filter(|_| name.starts_with(CHAIN_PREFIX)) {
            let table = self.saved.tables.entry(table).or_default();
            table.chains.insert(name.to_owned(), Vec::new());
        }
    }

    fn rule(&mut self, table: Option<Table>, rule: &str) {
        let (chain, text) = rule.split_once(' ').unwrap_or((rule, ""));
        let Some(table) = table else {
            return;
        };
        if BUILT_IN.contains(&chain) {
            let found = FoundRule {
                id: identity(text),
                text: text.to_owned(),
            };
            let table = self.saved.tables.entry(table).or_default();
            table.hooks.entry(chain.to_owned()).or_default().push(found);
        } else if let Some(table) = self.saved.tables.get_mut(&table)
            && let Some(rules) = table.chains.get_mut(chain)
        {
            rules.push(identity_inside(text));
        }
    }
}

fn hidden_table(line: &str) -> Option<Table> {
    let is_hidden = line.contains("is incompatible, use 'nft' tool");
    let name = line.split(['`', '\'']).nth(1).filter(|_| is_hidden)?;
    Table::ALL.into_iter().find(|t| t.name() == name)
}

/// The built-in chain and the rule of a line that adds a rule there.
pub fn hook_of(line: &str) -> Option<(&str, &str)> {
    let (command, rest) = line.split_once(' ')?;
    let (chain, rule) = rest.split_once(' ')?;
    if !BUILT_IN.contains(&chain) {
        return None;
    }
    match command {
        "-A" => Some((chain, rule)),
        "-I" => Some((chain, rule.split_once(' ')?.1)),
        _ => None,
    }
}
