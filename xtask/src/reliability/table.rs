//! The table of faults, and what may be wrong with it.

use std::collections::HashSet;

use anyhow::{Result, bail};
use serde::Deserialize;
use turn_testkit::figures::Figures;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    #[serde(rename = "section")]
    pub sections: Vec<Section>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    pub title: String,
    #[serde(rename = "fault")]
    pub faults: Vec<Fault>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// By which tests name it when they hand in figures.
    pub id: String,
    /// What breaks.
    pub what: String,
    /// What comes of it.
    pub then: String,
    /// Tests, by package, test program and name.
    #[serde(default)]
    pub tests: Vec<String>,
    /// Why there is no test.
    pub untested: Option<String>,
}

impl Table {
    pub fn parse(text: &str) -> Result<Self> {
        Ok(toml::from_str(text)?)
    }

    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.sections.iter().flat_map(|section| &section.faults)
    }

    /// The part of it with these ids, or all of it where there are none.
    pub fn only(&self, ids: &[String]) -> Result<Self> {
        if let Some(unknown) = ids.iter().find(|id| !self.faults().any(|fault| fault.id == **id)) {
            bail!("no fault is called {unknown}");
        }
        let mut part = self.clone();
        for section in &mut part.sections {
            section.faults.retain(|fault| ids.is_empty() || ids.contains(&fault.id));
        }
        Ok(part)
    }

    /// What is wrong, one line each.
    pub fn wrong(&self, existing: &HashSet<String>) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut seen = HashSet::new();
        for Fault { id, tests, untested, .. } in self.faults() {
            if !seen.insert(id) {
                wrong.push(format!("{id} is there twice"));
            }
            if tests.is_empty() == untested.is_none() {
                wrong.push(format!("{id} has neither tests nor a reason why not, or both"));
            }
            let missing = tests.iter().filter(|test| !existing.contains(*test));
            wrong.extend(missing.map(|test| format!("{id} names {test}, which does not exist")));
        }
        wrong
    }

    /// Which of the faults that were wanted nobody has measured, and which figures are of no fault at all.
    pub fn unmeasured(&self, wanted: &Self, figures: &[Figures]) -> Vec<String> {
        let is_measured = |id: &str| figures.iter().any(|figures| figures.fault == id);
        let unmeasured = wanted.faults().filter(|fault| !fault.tests.is_empty() && !is_measured(&fault.id));
        let unknown = figures.iter().filter(|figures| !self.faults().any(|fault| fault.id == figures.fault));
        unmeasured
            .map(|fault| format!("{} was measured by none of its tests", fault.id))
            .chain(unknown.map(|figures| format!("{} was measured and is not in the table", figures.fault)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        let table = Table::parse(include_str!("../../../docs/reliability.toml")).unwrap();
        let existing: HashSet<_> = table.faults().flat_map(|fault| fault.tests.clone()).collect();
        assert_eq!(table.wrong(&existing), [""; 0]);
        let figures: Vec<_> = table.faults().map(|fault| Figures::of(&fault.id)).collect();
        assert_eq!(table.unmeasured(&table, &figures), [""; 0]);

        let first = &table.sections[0].faults[0];
        let part = table.only(std::slice::from_ref(&first.id)).unwrap();
        assert_eq!(part.faults().count(), 1);
        assert_eq!(table.unmeasured(&part, &figures[..1]), [""; 0]);
        assert!(table.only(&["nonsense".into()]).is_err());
        let nothing = HashSet::new();
        assert!(table.wrong(&nothing)[0].starts_with(&format!("{} names {}", first.id, first.tests[0])));
        assert_eq!(
            table.unmeasured(&table, &figures[1..]),
            [format!("{} was measured by none of its tests", first.id)]
        );
        let unknown = [&figures[..], &[Figures::of("nonsense")]].concat();
        assert_eq!(table.unmeasured(&table, &unknown), ["nonsense was measured and is not in the table"]);
        let mut twice = table.clone();
        twice.sections[0].faults.push(first.clone());
        twice.sections[0].faults[0].untested = Some("too hard".into());
        assert_eq!(
            twice.wrong(&existing),
            [
                format!("{} has neither tests nor a reason why not, or both", first.id),
                format!("{} is there twice", first.id)
            ]
        );
    }
}
