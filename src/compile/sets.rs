//! The sets that rules name: each name and specification exists once, however many rules share it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ipnet::IpNet;

use super::members::storable;
use super::names;
use super::ruleset::{Member, Name, SetContent, SetKind, SetSpec};
use crate::api::{Family, PortRange};
use crate::calc::SetId;

/// All sets that any rule names.
#[derive(Debug, Default)]
pub(super) struct Sets {
    /// Names of sets of the policy, so that they are worked out once.
    of_policy: HashMap<SetId, HashMap<Family, Name>>,
    specs: HashMap<Name, Arc<SetSpec>>,
}

impl Sets {
    /// What a name stands for.
    pub(super) fn spec(&self, name: &Name) -> Option<&Arc<SetSpec>> {
        self.specs.get(name)
    }

    /// A set of the policy.
    pub(super) fn policy(&mut self, id: &SetId, family: Family) -> Name {
        if let Some(name) = self.of_policy.get(id).and_then(|n| n.get(&family)) {
            return name.clone();
        }
        let (kind, note) = match id {
            SetId::Selector(selector) => (SetKind::Nets, selector.to_string()),
            SetId::NamedPort { selector, port, .. } => {
                (SetKind::AddrPorts, format!("port {port} of {selector}"))
            }
        };
        let content = SetContent::Policy(vec![id.clone()]);
        let name = self.add(names::set(id, family), family, kind, content, &note);
        let own = self.of_policy.entry(id.clone()).or_default();
        own.insert(family, name.clone());
        name
    }

    /// Whether the members of a set are those of selectors of the policy.
    pub(super) fn is_of_selectors(&self, name: &Name) -> bool {
        let spec = self.specs.get(name);
        spec.is_some_and(|s| s.kind == SetKind::Nets && s.selectors().is_some())
    }

    /// The members of all these sets of selectors. Named after them, so that other sets are another union: what a union is made
    /// of never changes under the rules that name it, only its members do.
    pub(super) fn union(&mut self, names: &BTreeSet<&Name>, family: Family) -> Name {
        if let [one] = names.iter().collect::<Vec<_>>().as_slice() {
            return Name::clone(one);
        }
        let specs = names.iter().filter_map(|name| self.specs.get(*name));
        let ids = specs.filter_map(|s| s.selectors()).flatten().cloned();
        let content = SetContent::Policy(ids.collect());
        let name = names::constant_set("any", &joined(names.iter()), family);
        let note = format!("any of {} selectors", names.len());
        self.add(name, family, SetKind::Nets, content, &note)
    }

    /// A list of prefixes.
    pub(super) fn nets(&mut self, nets: &[IpNet], family: Family) -> Name {
        let nets: BTreeSet<IpNet> = IpNet::aggregate(&nets.to_vec()).into_iter().collect();
        let name = names::constant_set("nets", &joined(&nets), family);
        let members = nets.into_iter().flat_map(storable).map(Member::Net);
        let content = SetContent::Constant(Arc::new(members.collect()));
        self.add(name, family, SetKind::Nets, content, "CIDR list")
    }

    /// A list of ports.
    pub(super) fn ports(&mut self, ranges: &[PortRange], family: Family) -> Name {
        let name = names::constant_set("ports", &joined(ranges), family);
        let members = ranges.iter().flat_map(|r| r.first..=r.last);
        let content = SetContent::Constant(Arc::new(members.map(Member::Port).collect()));
        self.add(name, family, SetKind::Ports, content, "port list")
    }

    fn add(
        &mut self,
        name: String,
        family: Family,
        kind: SetKind,
        content: SetContent,
        note: &str,
    ) -> Name {
        if let Some((name, spec)) = self.specs.get_key_value(name.as_str())
            && spec.content == content
        {
            return name.clone();
        }
        let name: Name = name.into();
        let spec = SetSpec {
            family,
            kind,
            content,
            note: note.into(),
        };
        self.specs.insert(name.clone(), Arc::new(spec));
        name
    }

    /// Forgets the sets that no rule names any more: nobody else holds their name.
    pub(super) fn forget_unused(&mut self) {
        for names in self.of_policy.values_mut() {
            // Two holders are this table and the next one.
            names.retain(|_, name| Arc::strong_count(name) > 2);
        }
        self.of_policy.retain(|_, names| !names.is_empty());
        self.specs.retain(|name, _| Arc::strong_count(name) > 1);
    }
}

fn joined<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<String> = items.into_iter().map(|i| i.to_string()).collect();
    texts.join(",")
}
